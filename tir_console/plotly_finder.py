"""Serves plotly.js from the installed wheel, so that no third-party code is copied into the repository."""

from collections.abc import Iterable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage, Storage

NAME = "plotly/plotly.min.js"


def _package_data() -> Path:
    return Path(str(distribution("plotly").locate_file("plotly/package_data")))


class PlotlyFinder(BaseFinder):
    def find(self, path: str, find_all: bool = False, **_: Any) -> Any:
        found = [str(_package_data() / "plotly.min.js")] if path == NAME else []
        return found if find_all else (found[0] if found else [])

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, Storage]]:
        storage = FileSystemStorage(location=_package_data())
        storage.prefix = "plotly"  # type: ignore[attr-defined]
        yield "plotly.min.js", storage

    def check(self, **_: Any) -> Any:
        return []

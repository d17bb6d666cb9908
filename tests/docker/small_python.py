"""An image with nothing but the Python that the tests run with, as far as a small script needs it."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
from pathlib import Path

from tests.docker.engine import Engine

PYTHON = Path(sys.executable).resolve()
FILES = """
import concurrent.futures.thread, encodings.idna, signal, socket, sys
for one in list(sys.modules.values()):
    print(getattr(one, "__file__", None) or "", getattr(one, "__cached__", None) or "")
"""


def small_python(engine: Engine, name: str) -> None:
    """Add it as `name`."""
    told = subprocess.run([PYTHON, "-I", "-c", FILES], capture_output=True, text=True, check=True).stdout
    needed = {Path(each) for each in told.split()} | {PYTHON}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for file in sorted(needed | _libraries(needed)):
            if file.is_file():
                archive.add(file.resolve(), str(file).lstrip("/"), recursive=False)
        link = tarfile.TarInfo("usr/local/bin/python3")
        link.type, link.linkname = tarfile.SYMTYPE, str(PYTHON)
        archive.addfile(link)
    engine.client.import_image_from_data(made.getvalue(), *name.split(":"))


def _libraries(files: set[Path]) -> set[Path]:
    programs = [file for file in files if file.suffix == ".so" or file == PYTHON]
    told = subprocess.run(["ldd", *programs], capture_output=True, text=True, check=True).stdout
    return {Path(each) for each in re.findall(r"(/\S+) \(0x", told)}

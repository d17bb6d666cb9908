"""The pre-built containers without a registry: the last stage of their own Dockerfile, on a base of Debian by
debootstrap with the packages that the tests themselves run with."""

from __future__ import annotations

import atexit
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.docker.engine import Engine, cannot

CODE = Path(__file__).resolve().parents[2]
VENV = Path("opt/tir/venv")
WANTED = (
    "xllamacpp",
    "aiohttp",
    "orjson",
    "prometheus-client",
    "tokenizers",
    "numpy",
    "onnx",
    "onnxruntime",
    "pip",
)
NEVER_IMPORTED = {"huggingface-hub"}  # of tokenizers: it is only asked for what nobody has here
UNUSED = {"__pycache__", "test", "tests"}
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
BASE = "tir-test/python:1"


def prebuilt(engine: Engine, framework: str) -> str:
    """Build `tir-serving-<framework>:latest`, which is where a region looks for it; its name."""
    if not engine.client.images(BASE):
        with (engine.folder / "base.tar").open("w+b") as file:
            _base(file.name)
            engine.client.import_image(file.name, *BASE.split(":"))
    dockerfile = (CODE / "deploy" / "images" / "serving" / "Dockerfile").read_text()
    last = re.sub(r"(?m)^COPY --from=.*\n", "", dockerfile[dockerfile.rindex("FROM ${BASE}") :])
    name = f"tir-serving-{framework}:latest"
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        _add_text(archive, "Dockerfile", f"ARG BASE\n{last}")
        archive.add(
            CODE / "serving", "serving", filter=lambda entry: None if "__pycache__" in entry.name else entry
        )
    context.seek(0)
    said = list(
        engine.client.build(
            fileobj=context,
            custom_context=True,
            tag=name,
            buildargs={"BASE": BASE, "ENGINE": framework},
            rm=True,
            decode=True,
        )
    )
    assert engine.client.images(name), said
    return name


def _base(path: str) -> None:
    packages = [file for package in _needed(WANTED) for file in _files(package)]
    here = Path(sysconfig.get_path("purelib"))
    with tarfile.open(path, "w") as archive:
        archive.add(_debian(), ".", filter=lambda entry: None if entry.name.startswith("./dev/") else entry)
        for file in packages:
            archive.add(file, str(VENV / "lib" / PYTHON / "site-packages" / file.relative_to(here)))
        for name in ("python", "python3"):
            _add_link(archive, str(VENV / "bin" / name), f"/usr/bin/{PYTHON}")
        _add_text(archive, str(VENV / "pyvenv.cfg"), "home = /usr/bin\n")


@cache
def _debian() -> Path:
    """A root by debootstrap: the one that CI made meanwhile, or one of our own.

    Skips where its Python is another than ours, whose packages it could not run; CI must not.
    """
    given = os.environ.get("DEBIAN_BASE")
    root = Path(given or tempfile.mkdtemp(prefix="tirb-", dir="/tmp"))
    if not given:
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        made = subprocess.run([CODE / ".ci" / "base", root], capture_output=True, text=True, check=False)
        if made.returncode:
            cannot(f"no base of Debian could be made: {made.stderr[-500:] or made.stdout[-500:]}")
    if not (root / "usr/bin" / PYTHON).exists():
        cannot(f"the tests run with {PYTHON}, which this release of Debian doesn't have")
    return root


def _needed(names: Iterable[str]) -> list[Distribution]:
    """These distributions, with what they need in turn."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        if name in found or name in NEVER_IMPORTED:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # pip, in a virtual environment that was made without; or not for this platform
        needs = (Requirement(text) for text in found[name].requires or ())
        waiting += [each.name for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    return list(found.values())


def _files(package: Distribution) -> Iterator[Path]:
    here = Path(sysconfig.get_path("purelib"))
    for each in package.files or ():
        file = Path(str(package.locate_file(each))).resolve()
        if file.is_file() and file.is_relative_to(here) and not UNUSED & set(file.parts):
            yield file


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), 0o644
    archive.addfile(entry, io.BytesIO(text.encode()))

"""The pre-built containers without a registry: the last stage of their own Dockerfile, on a base made of this
machine's Python and of the packages that the tests themselves run with."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.docker.engine import BUSYBOX, TOOLS, Engine

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
LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|site-packages|dist-packages|config-[^/]*|"
    r"__pycache__)(/|$)"
)
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
            CODE / "serving", "serving", filter=lambda entry: None if LEFT_OUT.search(entry.name) else entry
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
    root = Path(sys.base_prefix)
    binary = Path(sys.executable).resolve()
    packages = [file for package in _needed(WANTED) for file in _files(package)]
    here = Path(sysconfig.get_path("purelib"))
    inside = VENV / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    library = Path(sysconfig.get_path("stdlib"))
    standard = [
        file for file in library.rglob("*") if file.is_file() and not LEFT_OUT.search(str(file.relative_to(root)))
    ]
    linked = {binary, BUSYBOX.resolve()} | {file for file in [*packages, *standard] if ".so" in file.name}
    with tarfile.open(path, "w") as archive:
        for file in packages:
            archive.add(file, str(inside / file.relative_to(here)))
        for file in standard:
            archive.add(file, str(file).lstrip("/"))
        archive.add(binary, str(binary).lstrip("/"))
        for file in _libraries(linked):
            archive.add(file.resolve(), str(file).lstrip("/"))
        archive.add(BUSYBOX.resolve(), "bin/busybox")
        for tool in TOOLS:
            _add_link(archive, f"bin/{tool}", "busybox")
        for name in ("python", "python3"):
            _add_link(archive, str(VENV / "bin" / name), str(binary))
        _add_text(archive, str(VENV / "pyvenv.cfg"), f"home = {binary.parent}\n")
        for folder in ("tmp", "proc", "sys", "dev", "etc", "opt/model"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            archive.addfile(entry)


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


def _libraries(binaries: Iterable[Path]) -> set[Path]:
    """The shared libraries that these need, by the loader's own account."""
    said = subprocess.run(["ldd", *map(str, sorted(binaries))], capture_output=True, text=True, check=False).stdout
    found = {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+) \(0x", said, re.MULTILINE)}
    inside = Path(sysconfig.get_path("purelib"))
    return {path for path in found if path.is_file() and not path.is_relative_to(inside)}


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _add_text(archive: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(text.encode()), 0o644
    archive.addfile(entry, io.BytesIO(text.encode()))

"""`python -m gateway.compiling`: the hot path to C with mypyc, for a quarter more requests a second. Needs mypy,
setuptools, a C compiler and Python's headers; a gateway that was not compiled runs all the same.

What is made lies outside of the sources and is used for exactly these, see `gateway.compiled`.
"""

import ast
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gateway import compiled
from gateway.compiled import HERE, HOT

SHARED = "tir_gateway"  # begins the name of the module that all compiled ones share
KEPT = 4  # of different sources, or worktrees would take each other's away
SELF_READ = {"NamedTuple", "Protocol", "StrEnum"}
USERS = ("server",)  # import compiled code and are not compiled
OPTIONS = ("--config-file=", "--ignore-missing-imports", "--follow-imports=silent", "--no-incremental")


class Unable(Exception):
    """It can't be compiled here; the message says why."""


def main() -> int:
    try:
        seconds = compile_all()
    except Unable as why:
        print(f"The gateway's hot path is not compiled: {why}", file=sys.stderr)  # noqa: T201
        return 1
    done = f"compiled in {seconds:.0f} s" if seconds else "compiled already"
    print(f"The gateway's hot path is {done}: {compiled.folder()}", file=sys.stderr)  # noqa: T201
    return 0


def compile_all() -> float:
    """Seconds that it took, 0 if it was there. Raises Unable."""
    home, began = compiled.folder(), time.monotonic()
    if home.is_dir():
        return 0.0
    check_tools()
    wrong = [f"{name}.py:{line}" for name in HOT for line in class_defaults((HERE / f"{name}.py").read_text())]
    if wrong:
        raise Unable(f"compiled classes may set these defaults in __init__ only: {', '.join(wrong)}.")
    try:
        compiled.cache().mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=compiled.cache(), prefix=".") as place:
            build(Path(place))
            if not home.is_dir():  # nobody was quicker
                (Path(place) / "out").rename(home)
    except OSError as problem:
        raise Unable(f"{compiled.cache()}: {problem.strerror}.") from None
    forget_old()
    return time.monotonic() - began


def check_tools() -> None:
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise Unable(f"there is no C compiler ({compiler}). Debian, Ubuntu: apt-get install gcc libc6-dev")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise Unable("Python's headers are missing. Debian, Ubuntu: apt-get install python3-dev")
    for name in ("mypyc", "setuptools"):
        if find_spec(name) is None:
            raise Unable(f"{name} is not installed; requirements.lock has it.")


def build(place: Path) -> None:
    """Into `out` there, from a copy, where mypy and setuptools find no settings of ours. What can't be imported
    then must not be found by a gateway."""
    for package in ("gateway", "monitoring", "accounts"):
        shutil.copytree(HERE.parent / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    run("from gateway import compiling; compiling.in_place()", place)
    names = ", ".join(f"gateway.{name}" for name in (*HOT, *USERS))
    run(f"import sys, gateway; gateway.compiled.use(gateway.__path__, 'out'); import {names}", place)


def run(code: str, place: Path) -> None:
    environ = os.environ | {"GATEWAY_COMPILED": "no", "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=place, check=False, capture_output=True, text=True, env=environ
    )
    if done.returncode:
        raise Unable("\n".join((done.stdout + done.stderr).strip().splitlines()[-20:]))


def in_place() -> None:
    """Compile the copy in the working folder, on all cores."""
    from mypyc.build import mypycify  # noqa: PLC0415 (compilers are needed in here only)
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.command.build_ext import build_ext  # noqa: PLC0415

    files = [f"gateway/{name}.py" for name in HOT]
    modules = mypycify([*OPTIONS, *files], opt_level="2", debug_level="0", multi_file=True, group_name=SHARED)
    command = build_ext(Distribution({"name": SHARED, "ext_modules": modules}))
    command.build_lib, command.build_temp, command.parallel = "out", "made", os.cpu_count()
    command.ensure_finalized()
    side_by_side()
    command.run()


def side_by_side() -> None:
    """Compile the files of one module at the same time, which setuptools doesn't: one of ours has nearly all."""
    from distutils.ccompiler import CCompiler  # noqa: PLC0415 (setuptools' own, where Python has none any more)

    def compile_files(self: Any, sources: list[str], output_dir: str, **more: Any) -> list[str]:
        macros, dirs, depends = more["macros"], more["include_dirs"], more["depends"]
        told = self._setup_compile(output_dir, macros, dirs, sources, depends, more["extra_postargs"])
        _, objects, options, preprocessor, builds = told
        arguments = self._get_cc_args(preprocessor, more["debug"], None)

        def one(made: str) -> None:
            source, suffix = builds[made]
            self._compile(made, source, suffix, arguments, options, preprocessor)

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(one, objects))
        return list(objects)

    CCompiler.compile = compile_files  # type: ignore[method-assign, assignment]


def class_defaults(source: str) -> Iterator[int]:
    """Lines of a class's body that set what mypyc leaves unset or can't read: all but numbers, texts, truth values
    and None. Decorators and some bases read theirs by themselves."""
    for one in ast.walk(ast.parse(source)):
        if (
            isinstance(one, ast.ClassDef)
            and not one.decorator_list
            and SELF_READ.isdisjoint(map(ast.unparse, one.bases))
        ):
            for row in one.body:
                value = row.value if isinstance(row, ast.Assign | ast.AnnAssign) else None
                names = ast.unparse(row).startswith(("__slots__", "__deletable__"))
                if value is not None and not isinstance(value, ast.Constant) and not names:
                    yield row.lineno


def forget_old() -> None:
    made = sorted((one for one in compiled.cache().iterdir() if one.is_dir()), key=lambda one: one.stat().st_mtime)
    for one in made[:-KEPT]:
        shutil.rmtree(one, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

"""A process of `python -m serving` with a model folder made by the test."""

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from tests.wait import until


@dataclass
class Server:
    process: subprocess.Popen[bytes]
    address: str
    log: Path

    def open(self, path: str, body: Any = None) -> HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        answer: HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(self.address + path, data), timeout=30
        )
        return answer

    def ask(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of an answer, an error's as well."""
        try:
            with self.open(path, body) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def events(self, path: str, body: Any) -> list[str]:
        """The data of each event of a stream."""
        with self.open(path, {**body, "stream": True}) as answer:
            text = answer.read().decode()
        return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]

    def metric(self, line: str) -> float:
        """The value of this line of /metrics, 0 if there is none."""
        with self.open("/metrics") as answer:
            lines = dict(one.rsplit(" ", 1) for one in answer.read().decode().splitlines() if one[:1] != "#")
        return float(lines.get(f"tir_serving_{line}", 0))

    def until_ready(self, seconds: float = 60) -> "Server":
        until(lambda: self.health() == (200, {"status": "ok"}), seconds=seconds, what="a ready model")
        return self

    def health(self) -> tuple[int, Any]:
        return self.ask("/health")


@contextmanager
def running(
    folder: Path, model: Path, engine: str = "python", *, python: str = sys.executable, **config: Any
) -> Iterator[Server]:
    """A server of this model; it may not be loaded yet. `folder` gets its config, address and log."""
    folder.mkdir(exist_ok=True)
    settings = {"engine": engine, "model": str(model), "alias": "demo", **config}
    (folder / "config.json").write_text(json.dumps(settings))
    options = ["--config", str(folder / "config.json"), "--address-file", str(folder / "address")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([python, "-m", "serving", *options], stdout=log, stderr=log)
    try:
        until(lambda: (folder / "address").exists() or process.poll() is not None, what="an address")
        assert process.poll() is None, (folder / "log").read_text()
        yield Server(process, (folder / "address").read_text().strip(), folder / "log")
    finally:
        process.kill()
        process.wait()


def refused(
    folder: Path, model: Path, engine: str = "python", *, python: str = sys.executable, **config: Any
) -> tuple[int, str]:
    """Exit code and last line of a server that can't start."""
    settings = {"engine": engine, "model": str(model), "alias": "demo", **config}
    (folder / "refused.json").write_text(json.dumps(settings))
    command = [python, "-m", "serving", "--config", str(folder / "refused.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stderr.splitlines()[-1]


def at_once(calls: Mapping[str, Any]) -> dict[str, Any]:
    """Each call in its own thread; what they answered, by name."""
    found: dict[str, Any] = {}

    def keep(name: str, call: Any) -> None:
        found[name] = call()

    threads = [threading.Thread(target=keep, args=(name, call)) for name, call in calls.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found

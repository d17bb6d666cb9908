"""`python -m tests.up.stage [JSON]`: `up` with real services and stand-ins for the console's own processes.

The JSON object may hold "doors" and "workers": {name: [argument, …]}, in place of the usual stand-ins.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from tir_console.up.launch import Cast, Launch
from tir_console.up.options import Options
from tir_console.up.program import Program, answers
from tir_console.up.trouble import Trouble

DOOR = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Ok(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{}')
    def log_message(self, *_): pass
print("open", flush=True)
HTTPServer(("127.0.0.1", int(sys.argv[1])), Ok).serve_forever()
"""
PREPARE = """import json, os
print(json.dumps({"login": "/login/link/for-you/", "key": os.environ["SECRET_KEY"]}))"""


def door(name: str, port: int) -> Program:
    url = f"http://127.0.0.1:{port}/healthz"
    return Program(name, (sys.executable, "-c", DOOR, str(port)), ready=lambda: answers(url), patience=1.0)


def doors(options: Options) -> list[Program]:
    return [door("console", options.console.port), door("gateway", options.gateway.port)]


def programs(wanted: dict[str, list[str]]) -> list[Program]:
    return [Program(name, tuple(command), patience=1.0) for name, command in wanted.items()]


def cast(wishes: dict[str, Any]) -> Cast:
    def workers(_: object) -> list[Program]:
        return programs(wishes.get("workers", {}))

    def own_doors(options: Options) -> list[Program]:
        never = [
            Program(name, tuple(command), ready=lambda: False) for name, command in wishes.get("doors", {}).items()
        ]
        return never or doors(options)

    return Cast(own_doors, workers, Program("prepare", (sys.executable, "-c", PREPARE)))


def main() -> int:
    wishes = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    arguments = argparse.Namespace(stop_all=False, no_input=True)
    try:
        return asyncio.run(Launch(Options.read(arguments, os.environ), cast(wishes)).run())
    except Trouble as trouble:
        print(f"up: {trouble}", file=sys.stderr)  # noqa: T201
        return 1


if __name__ == "__main__":
    assert Path("manage.py").exists(), "start it in the root of the repository"
    sys.exit(main())

"""An engine without a model, which behaves as BEHAVE says. Stdlib only: a pod gets it as an argument of Python.

It is process 1 of its container, which nobody in there can kill: SIGUSR1 ends it as SIGKILL from outside would.
"""

# ruff: noqa: T201  printing is what this program is for

import http.server
import os
import signal
import sys

KILLED = 137


class Healthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def main(behave: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(KILLED))
    print("hello from the engine", flush=True)
    if behave == "crash":
        print("the engine gave up", flush=True)  # by the same stream: a node may swap lines of two
        sys.exit(1)
    hoard = []
    while behave == "hungry":
        hoard.append(os.urandom(1 << 20))
    http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Healthy).serve_forever()


if __name__ == "__main__":
    main(os.environ.get("BEHAVE", "serve"))

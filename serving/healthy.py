"""python -m serving.healthy: exit code 0 if the server that TIR_CONFIG describes is ready. For HEALTHCHECK."""

from __future__ import annotations

import json
import os
import sys
import urllib.request


def healthy() -> bool:
    """Whether /health answers 200."""
    port = json.loads(os.environ.get("TIR_CONFIG", "{}")).get("port", 8000)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=4) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not healthy())

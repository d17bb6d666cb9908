"""What walls.py runs inside a container: its exit status says which of the addresses in its arguments answered.

Needs nothing but a Python. An argument is `any:HOST:PORT`, where a refusal is an answer too, `yes:HOST:PORT`,
where only a connection is, or empty.
"""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor

MARK = 64
SECONDS = 1  # to what lies on the same machine, or one hop from it


def answers(argument: str) -> bool:
    """Whether anything came back."""
    kind, _, where = argument.partition(":")
    host, _, port = where.rpartition(":")
    if not host:
        return False
    try:
        socket.create_connection((host, int(port)), SECONDS).close()
    except ConnectionRefusedError:
        return kind == "any"
    except OSError:
        return False
    return True


def main(arguments: list[str]) -> int:
    """MARK, and one bit more for each argument that answered."""
    with ThreadPoolExecutor(len(arguments)) as pool:
        return MARK + sum(came << place for place, came in enumerate(pool.map(answers, arguments)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

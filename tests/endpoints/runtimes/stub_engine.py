"""An engine without a model: it takes an instance's two options and behaves as BEHAVE says. Stdlib only."""

# ruff: noqa: T201  printing is what this program is for

import os
import signal
import socket
import sys
import time


def publish(path: str) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))
    with open(f"{path}.draft", "w", encoding="ascii") as file:
        file.write(f"http://127.0.0.1:{listener.getsockname()[1]}")
    os.replace(f"{path}.draft", path)
    return listener


def main(given: dict[str, str]) -> None:
    behave = os.environ.get("BEHAVE", "serve")
    print("hello from the engine", flush=True)
    if behave == "crash":
        sys.exit("the engine gave up")
    if behave == "hungry":
        hoard = []
        while True:
            hoard.append(bytearray(os.urandom(1 << 20)))
    if behave == "chatty":
        for number in range(int(os.environ["LINES"])):
            print(f"line {number} ".ljust(1000, "."))
        sys.stdout.flush()
    if behave == "telltale":
        print(*os.environ.values(), flush=True)
        print(*os.environ, file=sys.stderr, flush=True)
        print("end of tale", flush=True)
    if behave == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while behave == "slow" and not os.path.exists(os.environ["GO"]):
        time.sleep(0.01)
    listener = publish(given["--address-file"])
    if behave == "fork" and os.fork() == 0:
        signal.pause()
    if behave != "deaf":
        signal.sigwait([signal.SIGTERM])
        listener.close()
        print("goodbye", flush=True)
        sys.exit(0)
    while True:
        signal.pause()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    if os.environ.get("BEHAVE") == "deaf":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    main(dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True)))

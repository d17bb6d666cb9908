"""The parent of one engine: python -I -S supervise.py FOLDER [OPTION=VALUE …] -- ARGV…

It keeps the engine's log, passes SIGTERM on, and writes down how the engine ended. It is run as a file by an
interpreter without site-packages, because it stands in front of every start: it imports only what is quick.

FOLDER gets `log/` (see Log) and, at the end, `exit.json`. Options: `cwd=` where the engine starts; `grace=`
seconds from SIGTERM to SIGKILL; `data=` RLIMIT_DATA of the engine in bytes; `join=` procs files of the cgroups
that it enters, set apart by colons; `oom=` the file where that cgroup counts kills for lack of memory.
The engine's environment is this process's own, with TIR_ROLE=engine; the values of the variables that
TIR_SECRETS names are kept out of the log.
"""

import binascii
import os
import select
import signal
import sys
import time

SEGMENT_BYTES = 1 << 20
SEGMENTS = 8
LINE_BYTES = 16_384
MASK = b"[secret]"


class Log:
    """Numbered, timestamped lines in segments that are named by the number of their first line.

    One line is `<seconds since 1970> <o or e> <text>`. Old segments go, numbers stay: a reader that comes
    back sees by a jump that lines are gone. A full disk loses lines, never the engine.
    """

    def __init__(self, folder: str, secrets: "list[bytes]") -> None:
        self.folder = folder
        self.secrets = secrets
        self.next = 1
        self.room = 0
        self.fd = -1
        os.makedirs(folder, mode=0o700, exist_ok=True)

    def write(self, stream: str, text: bytes) -> None:
        """Append one line, without its secrets."""
        for secret in self.secrets:
            text = text.replace(secret, MASK)
        line = b"%.3f %s %s\n" % (time.time(), stream.encode(), text.rstrip(b"\r").replace(b"\n", b" "))
        try:
            if self.room < len(line):
                self.roll()
            written = os.write(self.fd, line)
            self.room = self.room - written if written == len(line) else 0
        except OSError:
            self.room = 0  # the number below is spent all the same, so that the gap shows
        self.next += 1

    def roll(self) -> None:
        """Begin a new segment; drop the oldest beyond the bound."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        path = os.path.join(self.folder, f"{self.next:020d}")
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.room = SEGMENT_BYTES
        for old in sorted(os.listdir(self.folder))[:-SEGMENTS]:
            os.unlink(os.path.join(self.folder, old))


class Pipe:
    """One of the engine's two streams, cut into lines."""

    def __init__(self, stream: str, fd: int) -> None:
        self.stream = stream
        self.fd = fd
        self.rest = b""

    def drain(self, log: Log) -> bool:
        """Write the complete lines there are; False at the end of the stream."""
        try:
            chunk = os.read(self.fd, 65_536)
        except BlockingIOError:
            return True
        *lines, self.rest = (self.rest + chunk).split(b"\n")
        if not chunk or len(self.rest) > LINE_BYTES:
            lines, self.rest = [*lines, self.rest] if self.rest else lines, b""
        for line in lines:
            for start in range(0, len(line) or 1, LINE_BYTES):
                log.write(self.stream, line[start : start + LINE_BYTES])
        return bool(chunk)


def hidden(environ: "dict[str, str]") -> "list[bytes]":
    """What must not reach the log: each secret's value as it is and in base64, longest first."""
    values = [os.fsencode(environ.get(name, "")) for name in environ.get("TIR_SECRETS", "").split(",")]
    found = []
    for value in values:
        if len(value) >= 4:  # shorter ones would black out ordinary text
            plain = binascii.b2a_base64(value).rstrip(b"=\n")
            found += [value, plain, plain.translate(bytes.maketrans(b"+/", b"-_"))]
    return sorted(set(found), key=len, reverse=True)


def start(argv: "list[str]", options: "dict[str, str]", outputs: "tuple[int, int]") -> int:
    """Fork and become the engine; the pid. It dies with us, even by SIGKILL, where the system can do that."""
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # none may fall between fork and exec
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        return pid
    try:
        confine(parent, options)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        os.chdir(options.get("cwd", "/"))
        os.execvpe(argv[0], argv, {**os.environ, "TIR_ROLE": "engine"})  # noqa: S606  no shell is the point
    except BaseException as error:  # noqa: BLE001  a forked child must never return into the parent's code
        os.write(outputs[1], f"supervise: cannot start {argv[0]}: {error}\n".encode())
    os._exit(127)


def confine(parent: int, options: "dict[str, str]") -> None:
    """In the child: plain signals, the end of the parent is ours, and the limits."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  4 ms, in the child alone

        ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(137)
    for procs in filter(None, options.get("join", "").split(":")):
        with open(procs, "w", encoding="ascii") as file:
            file.write(str(os.getpid()))
    if "data" in options:
        import resource  # noqa: PLC0415

        resource.setrlimit(resource.RLIMIT_DATA, (int(options["data"]),) * 2)


def watch(pid: int, pipes: "list[Pipe]", log: Log, wake: int, grace: float) -> "tuple[int, bool]":
    """Copy lines until the engine has ended; its wait status and whether it was asked to end."""
    deadline = None
    while True:
        ready = select.select([wake, *(pipe.fd for pipe in pipes)], [], [], 1.0)[0]
        pipes = [pipe for pipe in pipes if pipe.fd not in ready or pipe.drain(log)]
        if wake in ready and signal.SIGTERM in os.read(wake, 4096) and deadline is None:
            deadline = time.monotonic() + grace
            os.kill(pid, signal.SIGTERM)
        if deadline is not None and time.monotonic() > deadline:
            log.write("e", b"supervise: still there after the time to stop: killed")
            os.kill(pid, signal.SIGKILL)
            deadline = float("inf")
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            flush(pipes, log)
            return status, deadline is not None


def flush(pipes: "list[Pipe]", log: Log) -> None:
    """What is still in the pipes; a grandchild that keeps them open doesn't hold us."""
    for pipe in pipes:
        while select.select([pipe.fd], [], [], 0)[0] and pipe.drain(log):
            pass
        if pipe.rest:
            log.write(pipe.stream, pipe.rest)


def out_of_memory(path: "str | None") -> bool:
    """Whether the kernel killed in this cgroup, which had reached its limit.

    memory.oom_control (v1) and memory.events (v2) count every kill, also one because the whole machine is short.
    How often the limit was reached says `oom` in v2, and a file of its own in v1.
    """
    if path is None:
        return False
    try:
        with open(path, encoding="ascii") as file:
            counts = dict(line.split() for line in file)
        if "oom" not in counts:
            with open(os.path.join(os.path.dirname(path), "memory.failcnt"), encoding="ascii") as file:
                counts["oom"] = file.read()
        return int(counts.get("oom_kill", "0")) > 0 and int(counts["oom"]) > 0
    except (OSError, ValueError):
        return False


def record(folder: str, status: int, asked: bool, oom: bool) -> None:
    """Write exit.json, whole or not at all. The code is the shell's: 128 + n for an end by signal n."""
    code = os.waitstatus_to_exitcode(status)
    fate = {
        "exit_code": code if code >= 0 else 128 - code,
        "asked": asked,
        "finished_at": time.time(),
        "oom": oom,
    }
    import json  # noqa: PLC0415  not before the engine's start

    draft = os.path.join(folder, f"exit.{os.getpid()}")
    with open(draft, "w", encoding="utf-8") as file:
        json.dump(fate, file)
    os.replace(draft, os.path.join(folder, "exit.json"))


def main(arguments: "list[str]") -> None:
    """Run one engine to its end."""
    split = arguments.index("--")
    folder = arguments[0]
    options = dict(option.split("=", 1) for option in arguments[1:split])
    wake, ring = os.pipe()
    os.set_blocking(ring, False)
    signal.set_wakeup_fd(ring)
    for number in (signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])  # our parent started us with SIGTERM blocked
    outputs = [os.pipe(), os.pipe()]
    log = Log(os.path.join(folder, "log"), hidden(dict(os.environ)))
    pid = start(arguments[split + 1 :], options, (outputs[0][1], outputs[1][1]))
    for _, writing in outputs:
        os.close(writing)
    pipes = [Pipe(stream, output[0]) for stream, output in zip("oe", outputs, strict=True)]
    status, asked = watch(pid, pipes, log, wake, float(options.get("grace", "35")))
    record(folder, status, asked, out_of_memory(options.get("oom")))


if __name__ == "__main__":
    main(sys.argv[1:])

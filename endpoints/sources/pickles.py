"""What a pickle would import when it is loaded, read from its opcodes without executing any.

A pickle is a program. Its opcodes are walked with a stack that knows texts and nothing else, so that a name put
together from earlier texts is found as well; what can't be followed counts as dangerous.
"""

from __future__ import annotations

import io
import pickletools
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, Final, cast

LONGEST_ARGUMENT: Final = 16 << 20  # bytes of one argument that are kept; longer ones are passed over
LONGEST_LINE: Final = 1 << 16
LONGEST_NAME: Final = 500
DEEPEST: Final = 3  # pickles within bytes of pickles
MOST_VALUES: Final = 5_000_000  # on the stack at once
MOST_TEXTS: Final = 1_000_000
MOST_PICKLES: Final = 1000  # one after another in a file
ARCHIVE: Final = b"PK\x03\x04"
TORCH: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the first pickle of files of torch before 1.6
TORCH_PICKLES: Final = 5  # which they hold before raw numbers
LOOK_AT_CLOCK: Final = 2048  # opcodes
TEXTS: Final = frozenset(
    {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"}
)
BYTES: Final = frozenset({"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"})
PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})
GETS: Final = frozenset({"GET", "BINGET", "LONG_BINGET"})


class NotAPickle(Exception):
    """The bytes end early or are none; the text says what is wrong with them."""


class TooLong(Exception):
    """The time allowed ran out."""


class Deadline:
    """Until when one may look; `monotonic` seconds."""

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds

    def check(self) -> None:
        if time.monotonic() > self.ends:
            raise TooLong


@dataclass
class Seen:
    """The (module, name) pairs that would be imported, and what could not be followed."""

    names: set[tuple[str, str]] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)


class _Passed(bytes):
    """Stands for an argument that was too long to keep."""

    length: int

    def __len__(self) -> int:
        return self.length


class _Bounded:
    """A stream as pickletools reads it, that keeps no argument of any size in memory."""

    def __init__(self, stream: IO[bytes], deadline: Deadline) -> None:
        self.stream, self.deadline, self.place = stream, deadline, 0
        self.passed = b""  # how the argument began that was passed over last

    def tell(self) -> int:
        return self.place

    def read(self, size: int) -> bytes:
        if size <= LONGEST_ARGUMENT:
            data = self.stream.read(size)
            self.place += len(data)
            return data
        passed = _Passed(self.stream.read(16))
        self.passed = bytes(passed)
        passed.length = bytes.__len__(passed)
        while passed.length < size:
            self.deadline.check()
            piece = self.stream.read(min(1 << 20, size - passed.length))
            if not piece:
                break
            passed.length += len(piece)
        self.place += passed.length
        return passed

    def readline(self) -> bytes:
        line = self.stream.readline(LONGEST_LINE)
        self.place += len(line)
        if len(line) == LONGEST_LINE:
            raise ValueError("a line has no end")
        return line


class _Mark:
    """The stack's MARK."""


_MARK: Final = _Mark()
Value = str | _Mark | None  # None: a thing we know nothing of


class _Memo:
    """The texts among what a pickle remembers, by its numbers for them."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.count = 0

    def put(self, number: int, value: Value) -> None:
        self.count += 1
        if isinstance(value, str):
            self.texts[number] = value
        else:
            self.texts.pop(number, None)


def walk(stream: IO[bytes], deadline: Deadline, seen: Seen, depth: int = 0) -> None:
    """Add to `seen` what one pickle, up to its STOP, would import. Raises NotAPickle, TooLong."""
    stack, memo, reader = list[Value](), _Memo(), _Bounded(stream, deadline)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(cast("IO[bytes]", reader))):
            if count % LOOK_AT_CLOCK == 0:
                deadline.check()
                if len(stack) > MOST_VALUES or len(memo.texts) > MOST_TEXTS:
                    raise TooLong
            _step(opcode, argument, stack, memo, seen)
            if reader.passed:
                _too_large(reader.passed, seen)
                reader.passed = b""
            elif opcode.name in BYTES:
                _within(cast("bytes", argument), deadline, seen, depth)
    except (ValueError, IndexError, KeyError, OverflowError, EOFError) as wrong:
        raise NotAPickle(_first_line(wrong)) from None


def _step(opcode: Any, argument: Any, stack: list[Value], memo: _Memo, seen: Seen) -> None:
    name = opcode.name
    if name in TEXTS:
        known = isinstance(argument, str) and len(argument) <= LONGEST_NAME
        stack.append(argument if known else None)
    elif name in ("GLOBAL", "INST"):
        module, _, attribute = argument.partition(" ")
        seen.names.add((module, attribute))
        if name == "INST":
            _pop_to_mark(stack)
        stack.append(None)
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        if isinstance(module, str) and isinstance(attribute, str):
            seen.names.add((module, attribute))
        else:
            seen.hidden.add("a name that is made while it is loaded")
        stack.append(None)
    elif name in PUTS:
        memo.put(int(argument), stack[-1])
    elif name == "MEMOIZE":
        memo.put(memo.count, stack[-1])
    elif name in GETS:
        stack.append(memo.texts.get(int(argument)))
    elif name == "DUP":
        stack.append(stack[-1])
    else:
        if name.startswith("EXT"):
            seen.hidden.add("a number of the extension registry in place of a name")
        _generic(opcode, stack)


def _generic(opcode: Any, stack: list[Value]) -> None:
    """Any other opcode, by what pickletools says of its effect on the stack."""
    if opcode.name == "MARK":
        stack.append(_MARK)
        return
    before = opcode.stack_before
    if pickletools.markobject in before:
        _pop_to_mark(stack)
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        stack.pop()
    stack.extend(None for _ in opcode.stack_after)


def _pop_to_mark(stack: list[Value]) -> None:
    while stack.pop() is not _MARK:
        pass


def _too_large(start: bytes, seen: Seen) -> None:
    if looks_pickled(start) or start.startswith(ARCHIVE):
        seen.hidden.add("a large archive inside it")


def _within(argument: bytes, deadline: Deadline, seen: Seen, depth: int) -> None:
    """Bytes that are themselves a pickle, as torch puts tensors into other pickles."""
    if argument.startswith(ARCHIVE):
        seen.hidden.add("another archive inside it")
    if not looks_pickled(argument[:2]):
        return
    if depth >= DEEPEST:
        seen.hidden.add("pickles within pickles within pickles")
        return
    with suppress(NotAPickle):  # some other bytes; what they named before they broke counts all the same
        walk_all(io.BytesIO(argument), deadline, seen, depth + 1)


def walk_all(stream: IO[bytes], deadline: Deadline, seen: Seen, depth: int = 0) -> None:
    """One pickle after another, for as long as there are any; what follows the first may be something else."""
    at = stream.tell()
    torch = stream.read(len(TORCH)) == TORCH
    stream.seek(at)
    walk(stream, deadline, seen, depth)
    for _ in range(TORCH_PICKLES - 1 if torch else MOST_PICKLES):
        at = stream.tell()
        if not torch and not looks_pickled(stream.read(2)):
            return
        stream.seek(at)
        try:
            walk(stream, deadline, seen, depth)
        except NotAPickle:
            if torch:
                raise
            return


def looks_pickled(start: bytes) -> bool:
    """Whether bytes begin as every pickle of protocol 2 and up does."""
    return len(start) >= 2 and start[0] == 0x80 and 2 <= start[1] <= 5


def _first_line(wrong: Exception) -> str:
    said = str(wrong).splitlines()[0][:120] if str(wrong) else type(wrong).__name__
    return said if not isinstance(wrong, IndexError | KeyError) else "its instructions don't fit together"

"""Looking into a fetched model's files before anything loads them: no pickle may reach for the machine.

Nothing is unpickled or run, memory stays small whatever a file says of its size, and the time is bounded: what
can't be looked through in it is refused, because the rest could hold anything.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, cast

from endpoints.sources.layout import PICKLED
from endpoints.sources.note import BAD, WARN, Note
from endpoints.sources.pickles import Deadline, NotAPickle, Seen, TooLong, looks_pickled, walk_all
from endpoints.sources.trust import DANGEROUS, UNKNOWN, judged

SECONDS: Final = 60.0
SAFER: Final = "Save the weights as safetensors, which hold numbers only."
LARGEST_HEADER: Final = 100 << 20  # of a safetensors file, as its own library allows
TORCH_BIN: Final = re.compile(r"(pytorch_model|adapter_model|diffusion_pytorch_model|training_args).*\.bin$")
UNREADABLE: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)
BROKEN: Final = (*UNREADABLE, RuntimeError, NotImplementedError)  # the last two: ways of packing nobody here knows
MOST_MEMBERS: Final = 200_000
LAMBDA: Final = re.compile(rb'"class_name"\s*:\s*"Lambda"')
POINTER: Final = b"version https://git-lfs.github.com/spec/"
LONGEST_POINTER: Final = 1024
NUMPY: Final = b"\x93NUMPY"
# A name as an opcode would write it, for bytes between whose arrays no opcode can be told from a number.
SPELLED: Final = re.compile(
    rb"[ci]([a-z_]{2,20})\n([a-zA-Z_]+)\n|\x8c[\x02-\x14]([a-z_]{2,20})\x94?\x8c.([a-zA-Z_]+)\x94?\x93"
)


def scan_folder(root: Path, files: Sequence[str], *, seconds: float = SECONDS) -> list[Note]:
    """What is to be said of these files, by paths relative to `root`; "bad" ones must not be loaded.

    Files that can't run code are not mentioned unless they are damaged.
    """
    deadline = Deadline(seconds)
    return [note for path in files for note in _scan(root, path, deadline)]


def _scan(root: Path, path: str, deadline: Deadline) -> list[Note]:
    name = PurePosixPath(path.lower())
    known = bool(PICKLED & set(name.suffixes))
    told = (
        [Note(path, BAD, "It is damaged or no pickle: {}.", "Fetch or upload it again.")]
        if _is_pickle(name)
        else []
    )
    try:
        with (root / path).open("rb") as file:
            return _judge(file, (root / path).stat().st_size, path, name.suffix, known, deadline)
    except FileNotFoundError:
        return [Note(path, BAD, "The file is gone.", "Fetch or upload it again.")]
    except TooLong:
        return [Note(path, BAD, "It can't be looked through in the time allowed for it.", SAFER)]
    except NotAPickle as wrong:
        return [replace(note, text=note.text.format(wrong)) for note in told]
    except BROKEN as wrong:
        said = str(wrong).splitlines()[0][:120] if str(wrong) else type(wrong).__name__
        return [replace(note, text=note.text.format(said)) for note in told]


def _is_pickle(name: PurePosixPath) -> bool:
    """Whether such a file must be one; other programs than torch call raw numbers .bin."""
    return bool((PICKLED - {".bin"}) & set(name.suffixes)) or bool(TORCH_BIN.match(name.name))


def _judge(file: IO[bytes], size: int, path: str, suffix: str, known: bool, deadline: Deadline) -> list[Note]:
    start = file.read(8)
    if start == POINTER[:8] and size <= LONGEST_POINTER and file.read().startswith(POINTER[8:]):
        todo = "Bring the file itself with “git lfs pull”, and upload that."
        return [Note(path, BAD, "A pointer of Git LFS, which only names the file that should be here.", todo)]
    file.seek(0)
    if suffix == ".safetensors":
        return _safetensors(start, file, size, path)
    if start.startswith(b"PK\x03\x04"):
        return _zip(file, path, deadline)
    if suffix in (".h5", ".hdf5", ".keras"):
        return _lambdas(file, path, deadline)
    if start.startswith(NUMPY):
        return _told(path, _npy(file, deadline))
    if known and (unpacked := _unpacked(start, file)):
        return _told(path, _pickles(unpacked, deadline))
    if known or looks_pickled(start):
        return _told(path, _pickles(file, deadline))
    return []


def _told(path: str, seen: Seen | None) -> list[Note]:
    """The verdict on everything that a file would import; None: it holds no pickle."""
    if seen is None:
        return []
    by = {
        verdict: sorted(f"{m}.{n}" for m, n in seen.names if judged(m, n) == verdict)
        for verdict in (DANGEROUS, UNKNOWN)
    }
    bad = [*by[DANGEROUS], *sorted(seen.hidden)]
    if bad:
        return [Note(path, BAD, f"Loading it would call {_listed(bad)}, which no weights need.", SAFER)]
    if by[UNKNOWN]:
        return [Note(path, WARN, f"Loading it calls {_listed(by[UNKNOWN])}, which nobody here knows.", SAFER)]
    return [Note(path, WARN, "A pickle. All that it imports rebuilds arrays.", SAFER)]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:4])
    return f"{shown} and {len(names) - 4} more" if len(names) > 4 else shown


def _pickles(stream: IO[bytes], deadline: Deadline) -> Seen:
    seen, at = Seen(), stream.tell()
    try:
        walk_all(stream, deadline, seen)
    except NotAPickle:
        if ("joblib.numpy_pickle", "NumpyArrayWrapper") not in seen.names:
            if any(judged(*name) == DANGEROUS for name in seen.names):
                return seen  # what it would have called before it broke, it would have called
            raise
        stream.seek(at)
        _spelled(stream, deadline, seen)
    return seen


def _spelled(stream: IO[bytes], deadline: Deadline, seen: Seen) -> None:
    """joblib writes arrays between opcodes: look for dangerous names as they would have to be spelled."""
    kept = b""
    while piece := stream.read(1 << 20):
        deadline.check()
        for found in SPELLED.finditer(kept + piece):
            module, name = (part.decode() for part in (found[1] or found[3], found[2] or found[4]))
            if judged(module, name) == DANGEROUS:
                seen.names.add((module, name))
        kept = piece[-128:]


def _zip(file: IO[bytes], path: str, deadline: Deadline) -> list[Note]:
    """torch's, numpy's and Keras's archives: every member that is a pickle, whatever it is called."""
    found, notes = list[Seen](), list[Note]()
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > MOST_MEMBERS:
            raise TooLong
        for member in members:
            deadline.check()
            with archive.open(member) as inside:
                if member.filename.endswith("config.json"):
                    notes += _lambdas(inside, path, deadline)
                elif seen := _member(member.filename, inside, deadline):
                    found.append(seen)
    whole = Seen({name for seen in found for name in seen.names}, {it for seen in found for it in seen.hidden})
    return [*notes, *(_told(path, whole) if found else [])]


def _member(name: str, inside: IO[bytes], deadline: Deadline) -> Seen | None:
    start = inside.read(8)
    inside.seek(0)
    if start.startswith(NUMPY):
        return _npy(inside, deadline)
    if name.endswith((".pkl", ".pickle")) or looks_pickled(start):
        try:
            return _pickles(inside, deadline)
        except NotAPickle:
            if name.endswith((".pkl", ".pickle")):
                raise
    return None  # numbers that begin as a pickle would


def _npy(file: IO[bytes], deadline: Deadline) -> Seen | None:
    """An array of objects is a pickle behind numpy's header."""
    head = file.read(10)
    if len(head) < 10:
        raise NotAPickle("it ends in its header")
    length = int.from_bytes(head[8:10], "little")
    if head[6] > 1:
        length = int.from_bytes(head[8:10] + file.read(2), "little")
    if length > 1 << 20:
        raise NotAPickle("its header is too long")
    return _pickles(file, deadline) if b"|O" in file.read(length) else None


def _lambdas(file: IO[bytes], path: str, deadline: Deadline) -> list[Note]:
    """Keras's Lambda layers hold marshalled code, which runs when the model is loaded."""
    kept = b""
    while piece := file.read(1 << 20):
        deadline.check()
        if LAMBDA.search(kept + piece):
            todo = "Write the layer as a class of model.py, or save weights only."
            return [Note(path, BAD, "It has a Lambda layer: code that runs when it is loaded.", todo)]
        kept = piece[-64:]
    return []


def _safetensors(start: bytes, file: IO[bytes], size: int, path: str) -> list[Note]:
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if length > min(LARGEST_HEADER, size - 8):
        return [
            Note(
                path,
                BAD,
                "It is damaged or no safetensors file: its header is longer than it.",
                "Upload it again.",
            )
        ]
    file.seek(8)
    if not file.read(1).startswith(b"{"):
        return [Note(path, BAD, "It is no safetensors file: its header is not JSON.", "Upload it again.")]
    return []


def _unpacked(start: bytes, file: IO[bytes]) -> IO[bytes] | None:
    """The stream within, for the ways in which joblib and people compress pickles."""
    if start.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(file))
    if start.startswith((b"\xfd7zXZ\0", b"]\0\0")):
        return cast("IO[bytes]", lzma.LZMAFile(file))
    if start[:1] == b"\x78" and len(start) > 1 and (start[0] * 256 + start[1]) % 31 == 0:
        return cast("IO[bytes]", io.BufferedReader(_Inflated(file)))
    return None


class _Inflated(io.RawIOBase):
    """A zlib stream that can be read, and read again from its start, a little at a time."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.inflate, self.place = file, zlib.decompressobj(), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        data = b""
        while not data and not self.inflate.eof:
            source = self.inflate.unconsumed_tail or self.file.read(1 << 16)
            if not source:
                raise EOFError("it ends early")
            data = self.inflate.decompress(source, len(into))
        into[: len(data)] = data
        self.place += len(data)
        return len(data)

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self.place
        if offset < self.place:
            self.file.seek(0)
            self.inflate, self.place = zlib.decompressobj(), 0
        while self.place < offset and self.readinto(bytearray(min(1 << 16, offset - self.place))):
            pass
        return self.place

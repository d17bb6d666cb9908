"""Pickles that would reach for the machine are found before anything loads them; nothing here is unpickled."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import struct
import subprocess
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest

from endpoints.sources.note import BAD, Note
from endpoints.sources.pickles import TORCH
from endpoints.sources.scan import scan_folder
from tests.git_host import pointer

EVIL = [
    (os.system, ("touch /tmp/never",)),
    (subprocess.Popen, (["true"],)),
    (eval, ("1",)),
    (exec, ("1",)),
    (getattr, (1, "real")),
    (pickle.loads, (b"",)),
    (__import__, ("os",)),
]


class Calls:
    def __init__(self, function: Any, arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


class Named:
    """Pickles as a global of any module, by protocol 2's textual opcode."""

    def __init__(self, module: str, name: str) -> None:
        self.raw = b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n)R."


def looked(tmp_path: Path, name: str, data: bytes, **more: Any) -> Note | None:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    notes = scan_folder(tmp_path, [name], **more)
    assert len(notes) <= 1
    return notes[0] if notes else None


def zipped(**members: bytes) -> bytes:
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, data in members.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return whole.getvalue()


def old_torch(main: bytes, numbers: bytes = b"") -> bytes:
    return TORCH + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + main + pickle.dumps(["0"], 2) + numbers


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("evil", EVIL, ids=lambda evil: evil[0].__name__)
def test_a_pickle_that_calls_the_machine_is_bad_in_every_protocol(
    tmp_path: Path, evil: tuple[Any, Any], protocol: int
) -> None:
    note = looked(tmp_path, "model.pkl", pickle.dumps({"weights": Calls(*evil)}, protocol))
    assert note
    assert note.level == "bad"
    assert evil[0].__name__ in note.text
    assert "safetensors" in note.todo


@pytest.mark.parametrize("wrap", ["pt", "legacy", "gz", "bz2", "xz", "zlib", "npz", "bytes", "second"])
def test_it_is_found_however_it_is_wrapped(tmp_path: Path, wrap: str) -> None:
    evil = pickle.dumps(Calls(os.system, ("true",)))
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    data = {
        "pt": zipped(archive__data_dot_pkl=evil, archive__data__0=b"\0" * 64),
        "legacy": old_torch(evil),
        "gz": gzip.compress(evil),
        "bz2": bz2.compress(evil),
        "xz": lzma.compress(evil),
        "zlib": zlib.compress(evil),
        "npz": zipped(a_dot_npy=b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + evil),
        "bytes": pickle.dumps({"tensor": evil}),
        "second": pickle.dumps({}) + evil,
    }[wrap]
    note = looked(tmp_path, "model.npz" if wrap == "npz" else "model.pt", data)
    assert note
    assert (note.level, "system" in note.text) == ("bad", True)


def test_a_pickle_is_found_behind_any_name(tmp_path: Path) -> None:
    note = looked(tmp_path, "tokenizer/vocab.dat", pickle.dumps(Calls(os.system, ("true",))))
    assert note
    assert note.level == "bad"


def test_a_name_put_together_from_what_was_said_before_is_found(tmp_path: Path) -> None:
    """`os` and `system` are remembered, taken from the stack, and come back from memory before they are used."""
    hidden = b"\x80\x04\x8c\x06system\x940\x8c\x02os\x940\x8c\x04safe0h\x01h\x00\x93\x8c\x04true\x85R."
    note = looked(tmp_path, "model.bin", hidden)
    assert note
    assert "posix.system" in note.text or "os.system" in note.text


def test_what_cannot_be_followed_counts_as_bad(tmp_path: Path) -> None:
    made = b"\x80\x04K\x01K\x02\x93."  # numbers in place of names
    extension = b"\x80\x02\x82\x01."
    for data in (made, extension):
        note = looked(tmp_path, "model.pkl", data)
        assert note
        assert note.level == "bad"


@pytest.mark.parametrize(
    ("module", "name", "level"),
    [
        ("torch._utils", "_rebuild_tensor_v2", "warn"),
        ("torch", "FloatStorage", "warn"),
        ("torch", "bfloat16", "warn"),
        ("numpy.core.multiarray", "_reconstruct", "warn"),
        ("numpy", "ndarray", "warn"),
        ("sklearn.ensemble._forest", "RandomForestClassifier", "warn"),
        ("mine.layers", "Attention", "warn"),
        ("torch.hub", "load", "bad"),
        ("torch", "load", "bad"),
        ("numpy.testing._private.utils", "runstring", "bad"),
        ("numpy", "fromfile", "bad"),
        ("builtins", "breakpoint", "bad"),
        ("collections", "namedtuple", "bad"),
        ("importlib", "import_module", "bad"),
        ("functools", "partial", "bad"),
        ("operator", "methodcaller", "bad"),
        ("mine", "OrderedDict.__init__.__globals__", "bad"),
        ("endpoints.sources.store", "digest", "bad"),
    ],
)
def test_arrays_are_rebuilt_the_unknown_is_named_and_the_rest_refused(
    tmp_path: Path, module: str, name: str, level: str
) -> None:
    note = looked(tmp_path, "model.bin", Named(module, name).raw)
    assert note
    assert note.level == level
    if module == "mine.layers":
        assert "mine.layers.Attention, which nobody here knows" in note.text


def test_honest_weights_are_only_advised_to_change_their_format(tmp_path: Path) -> None:
    honest = pickle.dumps(OrderedDict(a=1), 2)
    numbers = struct.pack("<Q", 640) + b"\1" * 64  # 640 numbers follow: the count begins as a pickle does
    for data in (honest, old_torch(honest, numbers), zipped(a__data_dot_pkl=honest, a__data__0=numbers)):
        note = looked(tmp_path, "pytorch_model.bin", data)
        assert note == Note(
            "pytorch_model.bin",
            "warn",
            "A pickle. All that it imports rebuilds arrays.",
            note.todo if note else "",
        )


def test_joblib_arrays_between_the_opcodes_hide_nothing(tmp_path: Path) -> None:
    wrapper = b"\x80\x04\x8c\x12joblib.numpy_pickle\x8c\x11NumpyArrayWrapper\x93)R\xff\xff\xff\xff"
    wrapper = wrapper.replace(b"\x8c\x12joblib.numpy_pickle", b"\x8c\x13joblib.numpy_pickle")
    clean = looked(tmp_path, "clean.joblib", wrapper + b"\1" * 4096 + b".")
    evil = looked(tmp_path, "evil.joblib", wrapper + b"\1" * 4096 + b"\x8c\x02os\x94\x8c\x06system\x94\x93.")
    assert clean
    assert evil
    assert (clean.level, evil.level) == ("warn", "bad")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("cut.pkl", pickle.dumps(list(range(1000)))[:-20]),
        ("pytorch_model-00001-of-00002.bin", old_torch(pickle.dumps({}, 2))[:-4]),
        ("cut.pt", zipped(a__data_dot_pkl=pickle.dumps({}))[:-30]),
        ("inside.pt", zipped(a__data_dot_pkl=pickle.dumps(list(range(99)))[:-20])),
        ("pytorch_model.bin", b"<html>Not Found</html>"),
        ("cut.pkl.gz", gzip.compress(pickle.dumps(list(range(10_000))))[:-40]),
        ("short.safetensors", struct.pack("<Q", 1 << 40) + b"{}"),
        ("text.safetensors", struct.pack("<Q", 2) + b"<h"),
        ("empty.pth", b""),
    ],
)
def test_damaged_files_are_told_in_words(tmp_path: Path, name: str, data: bytes) -> None:
    note = looked(tmp_path, name, data)
    assert note
    assert note.level == "bad"
    assert note.todo


def test_raw_numbers_of_other_programs_are_no_damaged_pickles_but_looked_into_all_the_same(tmp_path: Path) -> None:
    assert looked(tmp_path, "openvino_model.bin", bytes(range(256)) * 64) is None
    note = looked(tmp_path, "vocab.bin", pickle.dumps(Calls(os.system, ("true",)), 0) + b"\0" * 64)
    assert note
    assert note.level == "bad"


@pytest.mark.parametrize("name", ["net.onnx", "weights/model.safetensors", "tokenizer/tokenizer.json", "w.bin"])
def test_a_pointer_is_no_model(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(pointer(b"the weights"))
    [note] = scan_folder(tmp_path, [name])
    assert (note.path, note.level) == (name, BAD)
    assert "pointer of Git LFS" in note.text
    assert "git lfs pull" in note.todo


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    assert [note.level for note in scan_folder(tmp_path, ["gone.bin"])] == ["bad"]


def test_lambda_layers_carry_code(tmp_path: Path) -> None:
    config = json.dumps({"layers": [{"class_name": "Lambda", "config": {}}]}).encode()
    for name, data in (
        ("a.h5", b"\x89HDF\r\n" + b"\0" * 999 + config),
        ("a.keras", zipped(config_dot_json=config)),
    ):
        note = looked(tmp_path, name, data)
        assert note
        assert "Lambda layer" in note.text


def test_files_that_can_run_nothing_are_passed_over(tmp_path: Path) -> None:
    header = b'{"a":{}}'
    safe = struct.pack("<Q", len(header)) + header
    for name, data in (
        ("a.safetensors", safe),
        ("model.gguf", b"GGUF" + b"\0" * 64),
        ("README.md", b"# Hello"),
        ("e.txt", b""),
    ):
        assert looked(tmp_path, name, data) is None


def test_a_claim_of_any_size_costs_no_memory(tmp_path: Path) -> None:
    """An argument said to have 2 TiB, and one of 64 MiB that is there, both beside a dangerous name."""
    note = looked(tmp_path, "model.pkl", b"\x80\x04\x8e" + struct.pack("<Q", 1 << 41) + b"x" * 64)
    assert note
    assert "damaged" in note.text
    large = tmp_path / "large.pkl"
    with large.open("wb") as file:
        file.write(b"\x80\x04\x8e" + struct.pack("<Q", 64 << 20))
        file.seek(64 << 20, os.SEEK_CUR)
        file.write(b"cos\nsystem\n\x8c\x04true\x85R.")
    (found,) = scan_folder(tmp_path, ["large.pkl"])
    assert "os.system" in found.text


def test_what_cannot_be_looked_through_in_time_is_refused(tmp_path: Path) -> None:
    note = looked(tmp_path, "long.pkl", b"\x80\x04" + b"N0" * 100_000 + b"N.", seconds=0.0)
    assert note
    assert (note.level, "time" in note.text) == ("bad", True)

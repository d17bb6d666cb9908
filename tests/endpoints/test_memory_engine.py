"""The estimate's cache and weights against what llama.cpp itself says that it allocates."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from endpoints.gguf import read_facts
from endpoints.memory import Device, kv_bytes, shape_from_gguf
from endpoints.memory.estimate import estimate
from tests import engine_models as models

MIB = 1 << 20
SIZE = re.compile(r" (CPU_Mapped model|CPU_REPACK model|CPU KV|CPU RS|CPU compute) buffer size = +([\d.]+) MiB")


@contextmanager
def loading(path: Path, length: int, slots: int, kv_type: str) -> Iterator[IO[str]]:
    """What our launcher's llama.cpp writes while it loads this model."""
    asked = {"engine": "llama.cpp", "model": str(path), "alias": "demo", "host": "127.0.0.1", "port": 0}
    asked |= {"context_length": length, "parallel": slots, "kv_cache_type": kv_type, "threads": 1}
    config = path.with_suffix(".json")
    config.write_text(json.dumps(asked | {"log_level": "DEBUG"}))
    command = [sys.executable, "-m", "serving", "--config", str(config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as engine:
        assert engine.stdout
        try:
            yield engine.stdout
        finally:
            engine.kill()


def allocated(path: Path, length: int, slots: int, kv_type: str) -> Counter[str]:
    """MiB by the kind of buffer."""
    found: Counter[str] = Counter()
    with loading(path, length, slots, kv_type) as said:
        lines = []
        for line in said:
            lines.append(line)
            if sizes := SIZE.search(line):
                found[sizes[1]] += float(sizes[2])  # type: ignore[assignment]
            if "CPU compute" in found:
                return found
    raise AssertionError("".join(lines[-20:]))


CASES: dict[str, tuple[Callable[[], bytes], int, int, str]] = {
    "grouped heads": (models.plain, 2048, 2, "f16"),
    "a cache of bytes in blocks": (models.plain, 1000, 3, "q8_0"),
    "windowed layers": (models.windowed, 2048, 2, "f16"),
    "a latent vector": (partial(models.latent, written_out=False), 2048, 2, "f16"),
    "latent heads written out": (partial(models.latent, written_out=True), 2048, 2, "f16"),
    "a state": (models.state_space, 2048, 2, "f16"),
    "rearranged weights": (partial(models.plain, "Q4_0"), 512, 1, "bf16"),
}


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_allocates_what_is_estimated(tmp_path: Path, case: str) -> None:
    make, length, slots, kv_type = CASES[case]
    data, path = make(), tmp_path / "model.gguf"
    path.write_bytes(data)
    shape = shape_from_gguf(read_facts(lambda offset, size: data[offset : offset + size], len(data)))
    told = allocated(path, length, slots, kv_type)
    cache = kv_bytes(shape, length=length, concurrency=slots, kv_type=kv_type, engine="llama.cpp")
    assert cache is not None
    assert cache / MIB == pytest.approx(told["CPU KV"] + told["CPU RS"], abs=0.02)
    if "CPU_REPACK model" in told:  # not on every processor
        assert shape.copied_bytes / MIB == pytest.approx(told["CPU_REPACK model"], abs=0.01)
    device = Device("cpu", 1 << 30)
    need = estimate(shape, length=length, concurrency=slots, kv_type=kv_type, engine="llama.cpp", device=device)
    assert need.parts
    assert need.parts.weights / MIB == pytest.approx(len(data) / MIB + told["CPU_REPACK model"], abs=0.05)

"""What vLLM says of its own memory while it starts: it takes its share of a card whole, whatever it needs."""

import re
from collections.abc import Iterable
from typing import Final

GIB: Final = 1 << 30
# Of v1/worker/gpu_worker.py, once per card: the share that it may take, and what of that is left for the cache.
SHARE = re.compile(r"Desired GPU memory utilization is \([\d.]+, ([\d.]+) GiB\)\.")
CACHE = re.compile(r"Current kv cache memory in use is ([\d.]+) GiB\.")


def besides_cache(lines: Iterable[str]) -> int | None:
    """Bytes on one card that aren't cache, the most that any says: weights, a step's peak, CUDA's own, graphs.

    None where the log doesn't tell: a version with other words, a log level above info. Said to 0.01 GiB.
    """
    pairs = ((SHARE.search(line), CACHE.search(line)) for line in lines)
    found = [float(share[1]) - float(cache[1]) for share, cache in pairs if share and cache]
    return int(max(found) * GIB) if found else None

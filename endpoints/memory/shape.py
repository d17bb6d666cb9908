"""The few numbers of a model that its memory need hangs on, whichever kind of file says them.

The traps are in the details: key-value heads are not attention heads, a head's size is not always
hidden / heads, windowed layers keep only their window, latent attention keeps one vector without a pair.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Layers:
    """`count` attention layers alike, and what each keeps per token.

    kv_heads x (key_length + value_length) values, no more tokens than `window`, which moves on in whole chunks if
    `chunked`; `latent` (MLA) keeps one vector of key_length for all heads, or `expanded` values in an engine that
    takes no advantage of it; `fixed` tokens, an encoder's, are kept whatever the length.
    """

    count: int
    kv_heads: int
    key_length: int
    value_length: int
    window: int | None = None
    chunked: bool = False
    latent: bool = False
    expanded: int = 0
    fixed: int | None = None


@dataclass(frozen=True)
class ModelShape:
    """`attention` is None where the description doesn't say enough, () where nothing is kept per token.

    `state_bytes`: what the `state_layers` recurrent layers keep per sequence, whatever its length.
    Of a GGUF: `host_bytes` of the weights never go to a GPU; `copied_bytes` of them are kept on a CPU a second
    time, rearranged for it.
    """

    weight_bytes: int | None
    attention: tuple[Layers, ...] | None
    heads: int | None = None
    hidden: int | None = None
    feed_forward: int | None = None
    vocabulary: int | None = None
    state_bytes: int = 0
    state_layers: int = 0
    trained_context: int | None = None
    parameter_count: int | None = None
    host_bytes: int = 0
    copied_bytes: int = 0
    notes: tuple[str, ...] = ()


def every(window: int, period: int, count: int) -> list[int | None]:
    """Every `period`th layer sees the whole length, the others `window`."""
    return [None if (layer + 1) % period == 0 else window for layer in range(count)]


def grouped(layers: Iterable[Layers]) -> tuple[Layers, ...]:
    """Layers of one each, counted where they are alike."""
    return tuple(replace(layer, count=count) for layer, count in Counter(layers).items())

"""The storage formats of tensors in GGUF files, as llama.cpp's ggml defines them.

A block format packs `elements` values into `size` bytes (scales included), so bytes per element are
`size / elements`, never the size of a block. Numbers: gguf-py's table of quantization sizes.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Block:
    """`elements` values stored together in `size` bytes."""

    name: str
    elements: int
    size: int

    def bytes_for(self, elements: int) -> int:
        """Bytes for this many values; an unfinished block takes a whole one."""
        return -(-elements // self.elements) * self.size


TENSOR_TYPES: Final[dict[int, Block]] = {
    0: Block("F32", 1, 4),
    1: Block("F16", 1, 2),
    2: Block("Q4_0", 32, 18),
    3: Block("Q4_1", 32, 20),
    6: Block("Q5_0", 32, 22),
    7: Block("Q5_1", 32, 24),
    8: Block("Q8_0", 32, 34),
    9: Block("Q8_1", 32, 36),
    10: Block("Q2_K", 256, 84),
    11: Block("Q3_K", 256, 110),
    12: Block("Q4_K", 256, 144),
    13: Block("Q5_K", 256, 176),
    14: Block("Q6_K", 256, 210),
    15: Block("Q8_K", 256, 292),
    16: Block("IQ2_XXS", 256, 66),
    17: Block("IQ2_XS", 256, 74),
    18: Block("IQ3_XXS", 256, 98),
    19: Block("IQ1_S", 256, 50),
    20: Block("IQ4_NL", 32, 18),
    21: Block("IQ3_S", 256, 110),
    22: Block("IQ2_S", 256, 82),
    23: Block("IQ4_XS", 256, 136),
    24: Block("I8", 1, 1),
    25: Block("I16", 1, 2),
    26: Block("I32", 1, 4),
    27: Block("I64", 1, 8),
    28: Block("F64", 1, 8),
    29: Block("IQ1_M", 256, 56),
    30: Block("BF16", 1, 2),
    34: Block("TQ1_0", 256, 54),
    35: Block("TQ2_0", 256, 66),
    39: Block("MXFP4", 32, 17),
    40: Block("NVFP4", 64, 36),
    41: Block("Q1_0", 128, 18),
}

# Of matrices in these, llama.cpp keeps a second copy on a CPU (of x86), rearranged for its vector units.
REPACKED: Final = frozenset({"Q4_0", "Q4_K", "Q2_K", "IQ4_NL", "MXFP4"})

# `general.file_type`: only the names that say more than the tensors do (which mix a K-quant is).
FILE_TYPES: Final[dict[int, str]] = {
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    21: "Q2_K_S",
}

"""Chunks of HTTP/1.1 as nearly everybody writes them: the size without extension or leading zero."""

HEADS = [b"%x\r\n" % size for size in range(4096)]
FRAMES = {len(head) + size + 2: head for size, head in enumerate(HEADS)}  # by the bytes of a whole chunk
HEAD_OF = [FRAMES.get(length, b"-") for length in range(max(FRAMES) + 1)]  # no chunk begins with that


def chunk_head(size: int) -> bytes:
    return HEADS[size] if size < len(HEADS) else b"%x\r\n" % size


def framed_of(data: bytes) -> bytes:
    """What is in the frame, where these bytes are exactly one such chunk; b"" where they may be anything else."""
    length = len(data)
    if length >= len(HEAD_OF):
        return b""
    head = HEAD_OF[length]
    return data[len(head) : -2] if data.startswith(head) and data.endswith(b"\r\n") else b""

"""What two parsers could read in two ways is refused, hung up on, and reaches no engine."""

import pytest

from tests.gateway.caller import AUTH, CHAT, HELLO, MODELS, asked, caller, chunked, once, still_serves
from tests.gateway.engine import Engine
from tests.gateway.house import House

HIDDEN = f"GET {MODELS} HTTP/1.1\r\nhost: x\r\n{AUTH}\r\n\r\n".encode()  # what an attacker wants served
START = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{AUTH}\r\n"
CHUNKS = chunked(HELLO)
assert len(HELLO) == 0x30  # several cases below count on it
LENGTH = f"content-length: {len(HELLO)}\r\n"
CHUNKED = "transfer-encoding: chunked\r\n"


def sent(lines: str, body: bytes = HELLO, *, start: str = START) -> bytes:
    return f"{start}{lines}\r\n".encode("latin-1") + body


HEADS = {
    "CL and TE": sent(f"{LENGTH}{CHUNKED}", CHUNKS),
    "TE and CL": sent(f"{CHUNKED}{LENGTH}", CHUNKS),
    "TE and CL, a fold between": sent(f"transfer-encoding:\r\n chunked\r\n{LENGTH}"),
    "CL twice, the same": sent(LENGTH * 2),
    "CL twice, different": sent(f"{LENGTH}content-length: 0\r\n"),
    "CL as a list": sent(f"content-length: {len(HELLO)}, {len(HELLO)}\r\n"),
    "CL with a plus": sent(f"content-length: +{len(HELLO)}\r\n"),
    "CL with a minus": sent("content-length: -1\r\n"),
    "CL in hex": sent("content-length: 0x30\r\n"),
    "CL with an underscore": sent("content-length: 4_8\r\n"),
    "CL with a space inside": sent("content-length: 4 8\r\n"),
    "CL empty": sent("content-length: \r\n"),
    "CL past 64 bits": sent(f"content-length: {2**64 + len(HELLO)}\r\n"),
    "CL with a space before the colon": sent(f"content-length : {len(HELLO)}\r\n"),
    "CL after a space": sent(f" {LENGTH}"),
    "CL in its name a null": sent(f"content\0-length: {len(HELLO)}\r\n"),
    "TE with a space before the colon": sent("transfer-encoding : chunked\r\n", CHUNKS),
    "TE twice, the same": sent(CHUNKED * 2, CHUNKS),
    "TE twice, gzip first": sent(f"transfer-encoding: gzip\r\n{CHUNKED}", CHUNKS),
    "TE twice, identity last": sent(f"{CHUNKED}transfer-encoding: identity\r\n", CHUNKS),
    "TE chunked twice in one": sent("transfer-encoding: chunked, chunked\r\n", CHUNKS),
    "TE gzip and chunked": sent("transfer-encoding: gzip, chunked\r\n", CHUNKS),
    "TE chunked and gzip": sent("transfer-encoding: chunked, gzip\r\n", CHUNKS),
    "TE identity": sent("transfer-encoding: identity\r\n"),
    "TE identity and CL": sent(f"transfer-encoding: identity\r\n{LENGTH}"),
    "TE almost chunked": sent("transfer-encoding: xchunked\r\n", CHUNKS),
    "TE quoted": sent('transfer-encoding: "chunked"\r\n', CHUNKS),
    "TE with a parameter": sent("transfer-encoding: chunked;q=1\r\n", CHUNKS),
    "TE with a vertical tab": sent("transfer-encoding: \x0bchunked\r\n", CHUNKS),
    "TE with a null": sent("transfer-encoding: chunked\0\r\n", CHUNKS),
    "TE empty": sent("transfer-encoding: \r\n", CHUNKS),
    "TE empty and CL": sent(f"transfer-encoding: \r\n{LENGTH}"),
    "TE in HTTP/1.0": sent(CHUNKED, CHUNKS, start=START.replace("1.1", "1.0")),
    "TE and CL in HTTP/1.0": sent(f"{CHUNKED}{LENGTH}", CHUNKS, start=START.replace("1.1", "1.0")),
    "a fold": sent(f"x-a: b\r\n c: d\r\n{LENGTH}"),
    "a fold by a tab": sent(f"x-a: b\r\n\tc: d\r\n{LENGTH}"),
    "a fold before all": sent(LENGTH, start=START.replace("host", " host", 1)),
    "a bare LF between headers": sent(f"x-a: b\nx-b: c\r\n{LENGTH}"),
    "a bare LF hides TE": sent(f"x-a: b\n{CHUNKED}{LENGTH}", CHUNKS),
    "a bare LF ends the head": sent(f"{LENGTH}\n".replace("\r\n\n", "\n\n")),
    "bare LFs only": sent(LENGTH).replace(b"\r\n", b"\n"),
    "a bare CR between headers": sent(f"x-a: b\rx-b: c\r\n{LENGTH}"),
    "a bare CR ends the head": sent(LENGTH).replace(b"\r\n\r\n", b"\r\n\r"),
    "a null in a value": sent(f"x-a: b\0c\r\n{LENGTH}"),
    "a header without a colon": sent(f"x-a\r\n{LENGTH}"),
    "a header without a name": sent(f": a\r\n{LENGTH}"),
    "a high byte in a name": sent(f"x-\xe4: a\r\n{LENGTH}"),
    "a space in the target": sent(LENGTH, start=START.replace(CHAT, CHAT + " x")),
    "a tab in the request line": sent(LENGTH, start=START.replace(" HTTP", "\tHTTP")),
    "a space after the version": sent(LENGTH, start=START.replace("1.1", "1.1 ", 1)),
    "two keys": sent(f"authorization: Bearer other\r\n{LENGTH}"),
    "a wish for h2c with CL and TE": sent(f"connection: upgrade\r\nupgrade: h2c\r\n{LENGTH}{CHUNKED}", CHUNKS),
    "a wish for h2c with TE twice": sent(
        f"connection: upgrade\r\nupgrade: h2c\r\ntransfer-encoding: gzip\r\n{CHUNKED}", CHUNKS
    ),
}

BODIES = {
    "a size with 0x": b"0x30\r\n",
    "a size with a plus": b"+30\r\n",
    "a size with a minus": b"-1\r\n",
    "a size with a space after it": b"30 \r\n",
    "a size with a space before it": b" 30\r\n",
    "no size": b"\r\n",
    "no size but an extension": b";a=b\r\n",
    "a size past 64 bits": b"f" * 17 + b"\r\n",
    "a size ended by a bare LF": b"30\n" + HELLO + b"\r\n0\r\n\r\n",
    "an extension ended by a bare LF": b"30;a\n" + HELLO + b"\r\n0\r\n\r\n",
    "an extension with a bare CR": b"30;a\rb\r\n" + HELLO + b"\r\n0\r\n\r\n",
    "a chunk longer than its size": b"3\r\n" + HELLO + b"\r\n0\r\n\r\n",
    "a chunk ended by a bare LF": b"30\r\n" + HELLO + b"\n0\r\n\r\n",
    "a last chunk ended by a bare LF": b"30\r\n" + HELLO + b"\r\n0\n\n",
    "a trailer that is a length": chunked(HELLO, last=b"0\r\ncontent-length: 9\r\n\r\n"),
    "a trailer that is a coding": chunked(HELLO, last=b"0\r\ntransfer-encoding: chunked\r\n\r\n"),
    "a trailer that is none": chunked(HELLO, last=b"0\r\nno colon\r\n\r\n"),
    "a folded trailer": chunked(HELLO, last=b"0\r\nx-a: b\r\n c\r\n\r\n"),
}


async def refused(gateway: House, engine: Engine, data: bytes) -> None:
    async with caller(gateway) as line:
        await line.send(data + HIDDEN)
        answer = await line.answer()
        assert answer.status in (400, 501), answer
        assert answer.code in ("invalid_request", "transfer_encoding")
        assert answer.closes
        assert await line.ended() == b"", "a second answer came"
    assert engine.heads == [], "something reached the engine"
    await still_serves(gateway)


async def test_what_stood_before_a_good_head_is_not_remembered_as_one(gateway: House) -> None:
    """The parser passes over line ends before a head, and the first empty line among them is no head's end."""
    empty = b"\r\r\n\r\n"
    assert (await once(gateway, empty + asked("GET", MODELS))).status == 200
    async with caller(gateway) as line:
        await line.send(empty)
        await still_serves(gateway)
        await line.send(b"GET / HTTP/1.1\r\n\r\n")
        assert (await line.answer()).status == 400
    assert len(gateway.records) == 2, "a stranger's line ends were answered by another's request"


@pytest.mark.parametrize("data", HEADS.values(), ids=HEADS.keys())
async def test_a_head_that_can_be_read_in_two_ways_is_refused(gateway: House, engine: Engine, data: bytes) -> None:
    await refused(gateway, engine, data)


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_can_be_read_in_two_ways_is_refused(gateway: House, engine: Engine, body: bytes) -> None:
    await refused(gateway, engine, sent(CHUNKED, body))


@pytest.mark.parametrize("name", ["CL and TE", "CL twice, different", "a fold", "TE twice, gzip first"])
async def test_it_is_refused_behind_good_requests_too(gateway: House, engine: Engine, name: str) -> None:
    async with caller(gateway) as line:
        await line.send(asked(body=HELLO) * 2 + HEADS[name] + HIDDEN)
        assert [(await line.answer()).status for _ in range(2)] == [200, 200]
        answer = await line.answer()
        assert (answer.status in (400, 501), answer.closes) == (True, True)
        assert await line.ended() == b""
    assert len(engine.heads) == 2


async def test_the_body_of_a_get_is_never_a_request(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(asked("GET", MODELS, "x-request-id: one", body=HIDDEN) + asked("GET", "/healthz"))
        assert (await line.answer()).headers["x-request-id"] == "one"
        assert (await line.answer()).json()["status"] == "ok"
    assert len(engine.heads) == 1
    assert "content-length" not in engine.heads[0]


async def test_the_body_of_a_refused_request_is_never_a_request(gateway: House, engine: Engine) -> None:
    async with caller(gateway) as line:
        await line.send(asked("POST", "/e/tiny/v1/nothing", body=HIDDEN) + asked("GET", "/healthz"))
        assert (await line.answer()).status == 404
        assert (await line.answer()).json()["status"] == "ok"
    assert engine.heads == []


async def test_the_path_of_an_encoded_slash_reaches_only_what_is_served(gateway: House, engine: Engine) -> None:
    for target in ("/e/tiny/v1%2Fmodels%3Fx", "/e/tiny/%2e%2e/v1/models", "/e/tiny/v1/models%00", "/e/tiny/%zz"):
        async with caller(gateway) as line:
            await line.send(asked("GET", target))
            assert (await line.answer()).status in (400, 404)
    assert engine.heads == []

"""Only the console's own pages, and those of origins that an endpoint names, may call from a browser."""

from pathlib import Path

from gateway.cors import Cors
from gateway.routes import Admission
from tests.gateway.engine import Engine
from tests.gateway.house import ASK, house

CONSOLE = Cors(["http://127.0.0.1:8000"])


def test_the_consoles_page_may_call_and_read_the_answer() -> None:
    headers = dict(CONSOLE.headers(b"http://127.0.0.1:8000"))
    assert headers[b"access-control-allow-origin"] == b"http://127.0.0.1:8000"
    assert headers[b"vary"] == b"origin"
    allowed = dict(CONSOLE.preflight({b"origin": b"http://127.0.0.1:8000"}) or ())
    assert b"authorization" in allowed[b"access-control-allow-headers"]


def test_a_console_opened_as_localhost_is_the_same_console() -> None:
    assert CONSOLE.headers(b"http://localhost:8000")


def test_strangers_and_lookalikes_may_not() -> None:
    for origin in (None, b"null", b"http://127.0.0.1:8001", b"https://127.0.0.1:8000", b"http://evil.example"):
        assert CONSOLE.headers(origin) == ()
        assert CONSOLE.preflight({} if origin is None else {b"origin": origin}) is None


def test_without_a_console_nobody_may() -> None:
    assert Cors().headers(b"http://127.0.0.1:8000") == ()


async def test_an_endpoint_names_who_else_may_call_it(tmp_path: Path) -> None:
    admission = Admission(origins=frozenset({b"https://app.example"}))
    async with Engine() as engine, house(tmp_path, engine, admission=admission) as gateway:
        mine, other = {"origin": "https://app.example"}, {"origin": "https://evil.example"}
        asked = await gateway.call.options("/e/tiny/v1/chat/completions", headers=mine)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, mine["origin"])
        ours = "authorization,content-type,x-stainless-arch,x-stainless-retry-count"
        wishes = mine | {"access-control-request-method": "DELETE", "access-control-request-headers": ours}
        cancel = await gateway.call.options("/e/tiny/v1/async/status/async-req-1", headers=wishes)
        assert cancel.headers["access-control-allow-headers"] == ours
        assert "DELETE" in cancel.headers["access-control-allow-methods"]
        answer = await gateway.call.post("/e/tiny/v1/chat/completions", json=ASK, headers=mine)
        assert answer.headers["access-control-allow-origin"] == mine["origin"]
        assert "x-ratelimit-remaining-tokens" in answer.headers["access-control-expose-headers"]
        strangers = await gateway.call.post("/e/tiny/v1/chat/completions", json=ASK, headers=other)
        assert "access-control-allow-origin" not in strangers.headers
        elsewhere = await gateway.call.options("/e/other/v1/chat/completions", headers=mine)
        assert "access-control-allow-origin" not in elsewhere.headers

"""Only the console's own pages may call the gateway from a browser."""

from gateway.cors import Cors

CONSOLE = Cors(["http://127.0.0.1:8000"])


def test_the_consoles_page_may_call_and_read_the_answer() -> None:
    headers = dict(CONSOLE.headers(b"http://127.0.0.1:8000"))
    assert headers[b"access-control-allow-origin"] == b"http://127.0.0.1:8000"
    assert headers[b"vary"] == b"origin"
    allowed = dict(CONSOLE.preflight(b"http://127.0.0.1:8000") or ())
    assert b"authorization" in allowed[b"access-control-allow-headers"]


def test_a_console_opened_as_localhost_is_the_same_console() -> None:
    assert CONSOLE.headers(b"http://localhost:8000")


def test_strangers_and_lookalikes_may_not() -> None:
    for origin in (None, b"null", b"http://127.0.0.1:8001", b"https://127.0.0.1:8000", b"http://evil.example"):
        assert CONSOLE.headers(origin) == ()
        assert CONSOLE.preflight(origin) is None


def test_without_a_console_nobody_may() -> None:
    assert Cors().headers(b"http://127.0.0.1:8000") == ()

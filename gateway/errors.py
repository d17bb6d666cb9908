"""Refusals in the shape OpenAI's own clients read: {"error": {"message", "type", "param", "code"}}."""

from dataclasses import dataclass
from typing import Any

import orjson

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is not the engine's: what was wrong, in words and in a code, and what helps."""

    status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    headers: Headers = ()

    def body(self) -> bytes:
        return envelope(self.message, type=self.type, param=self.param, code=self.code)

    def event(self) -> bytes:
        """The same as one server-sent event, for a stream whose head is already on its way."""
        return b"data: " + self.body() + b"\n\n"


def envelope(message: str, *, type: str, param: str | None, code: str | None) -> bytes:  # noqa: A002
    error = {"message": message, "type": type, "param": param, "code": code}
    return orjson.dumps({"error": error})


def no_key(problem: str, *, code: str = "invalid_api_key") -> Refusal:
    challenge = ((b"www-authenticate", b'Bearer realm="tir"'),)
    return Refusal(401, code, problem, type="authentication_error", headers=challenge)


def forbidden(problem: str, *, code: str) -> Refusal:
    return Refusal(403, code, problem, type="permission_error")


def unknown_endpoint(name: str) -> Refusal:
    return Refusal(404, "endpoint_not_found", f"There is no endpoint {shown(name)} here.")


def unknown_path(path: str, known: tuple[str, ...]) -> Refusal:
    what = f"{shown(path)} is not served here. What is: {', '.join(known)}."
    return Refusal(404, "unknown_url", what)


def unknown_model(model: str, known: tuple[str, ...]) -> Refusal:
    what = f"The model {shown(model)} does not exist at this endpoint. It serves: {', '.join(known)}."
    return Refusal(404, "model_not_found", what, param="model")


def wrong_method(method: str, allowed: str) -> Refusal:
    what = f"{shown(method)} is not allowed here; use {allowed}."
    return Refusal(405, "method_not_allowed", what, headers=((b"allow", allowed.encode()),))


def too_large(limit: int) -> Refusal:
    what = f"The request body is larger than {limit / 2**20:g} MiB, the most this gateway takes."
    return Refusal(413, "request_too_large", what)


def not_json(problem: str) -> Refusal:
    return Refusal(400, "invalid_json", problem)


def wrong_value(param: str, problem: str) -> Refusal:
    return Refusal(400, "invalid_value", problem, param=param)


def stopped(message: str) -> Refusal:
    return Refusal(409, "endpoint_stopped", message, type="conflict_error")


def not_ready(message: str, *, code: str, retry_after: int) -> Refusal:
    wait = ((b"retry-after", str(retry_after).encode()),)
    return Refusal(503, code, message, type="service_unavailable_error", headers=wait)


def upstream(status: int, code: str, message: str) -> Refusal:
    return Refusal(status, code, message, type="upstream_error")


def of_engine(status: int, body: bytes) -> bytes:
    """The engine's own error, completed to the whole shape; what is none of its shapes is quoted."""
    try:
        found: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        found = body.decode("utf-8", "replace").strip()
    error = found.get("error", found) if isinstance(found, dict) else found
    kind = "invalid_request_error" if status < 500 else "upstream_error"
    if not isinstance(error, dict):
        text = str(error)[:2000] if error else f"The engine answered {status} and said nothing."
        return envelope(text, type=kind, param=None, code=None)
    message = error.get("message") or error.get("detail") or orjson.dumps(error).decode()[:2000]
    whole = {"message": message, "type": kind, "param": None, "code": None}
    return orjson.dumps({"error": {**whole, **error, "message": message}})


def shown(text: str) -> str:
    """What the client sent, quoted and cut, so that an error never grows to the size of its cause."""
    return repr(text if len(text) <= 80 else text[:77] + "...")

"""What is read in, checked in and filled into a request's body before an engine gets it."""

from typing import Any, NamedTuple

import orjson

from gateway.errors import Refusal, not_json, unknown_model, wrong_value
from gateway.routes import Route
from gateway.usage import CHARS_PER_TOKEN, contexts, made, most_generated, prompt_tokens

GENERATIONS = ("v1/chat/completions", "v1/completions")


class Prepared(NamedTuple):
    """A body for the engine, and what must be remembered of the client's own."""

    body: bytes
    request: dict[str, Any]
    stream: bool
    wants_usage: bool

    def tokens(self, limit: int | None, context: int = 0) -> int:
        """Tokens that the request may come to under a limit of tokens: its prompt, and the most it lets be
        generated, but no more than what `context` holds (0: unknown). Far from the limit the length of the body
        is near enough; 0 where there is none."""
        if limit is None:
            return 0
        several = contexts(self.request)
        most = most_generated(self.request) * several
        tokens = len(self.body) // CHARS_PER_TOKEN + most
        if tokens * 10 >= limit:
            tokens = prompt_tokens(self.request) + most
        return min(tokens, context * several) if context else tokens


NO_BODY = Prepared(b"", {}, stream=False, wants_usage=False)


def prepare(route: Route, path: str, body: bytes) -> Prepared | Refusal:
    """Check the body and fill in what the endpoint adds: its defaults, and the question for usage."""
    request = parsed(body)
    if isinstance(request, Refusal):
        return request
    stream = request.get("stream")
    if stream is not None and not isinstance(stream, bool):
        return wrong_value("stream", "'stream' must be true or false.")
    options = request.get("stream_options")
    if options is not None and not isinstance(options, dict):
        return wrong_value("stream_options", "'stream_options' must be an object.")
    model = request.get("model")
    if model is not None and not route.foreign and model not in route.models:
        if not isinstance(model, str):
            return wrong_value("model", "'model' must be a string.")
        return unknown_model(model, route.models)
    known = model == route.name or (model is not None and route.foreign)
    additions: dict[str, Any] = {} if known else {"model": route.name}
    if path in GENERATIONS:
        if route.defaults:
            additions |= {name: value for name, value in route.defaults.items() if request.get(name) is None}
        if stream:
            additions["stream_options"] = {**(options or {}), "include_usage": True}
    try:
        changed = orjson.dumps({**request, **additions}) if additions else body
    except orjson.JSONEncodeError as wrong:
        return not_json(f"The body can't be read: {wrong}.")
    wants_usage = options is not None and bool(options.get("include_usage"))
    return made(Prepared, (changed, request, bool(stream), wants_usage))


def parsed(body: bytes) -> dict[str, Any] | Refusal:
    """The body as a JSON object, or a refusal that says where it stops being one."""
    try:
        request: Any = orjson.loads(body)
    except orjson.JSONDecodeError as wrong:
        if not body.strip():
            return not_json("The request has no body; a JSON object is expected.")
        where = f"line {wrong.lineno}, column {wrong.colno} (character {wrong.pos})"
        return not_json(f"The body is not valid JSON at {where}: {wrong.msg}.")
    if not isinstance(request, dict):
        return not_json(f"The body must be a JSON object, not {KINDS.get(type(request), 'a value')}.")
    return request


KINDS: dict[type, str] = {
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a truth value",
    type(None): "null",
}

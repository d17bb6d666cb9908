"""Refusals in the shape OpenAI's own clients read: {"error": {"message", "type", "param", "code"}}."""

from __future__ import annotations

from aiohttp import web

from serving.server.wire import dumps


class Wrong(Exception):
    """A request that is answered with an error; `str()` is for whoever sent it."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param

    def body(self) -> dict[str, object]:
        """The JSON of the answer, also for the event that ends a broken stream."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> web.Response:
        """The answer."""
        headers = {"Retry-After": "1"} if self.status == 503 else {}
        return web.Response(
            status=self.status, body=dumps(self.body()), content_type="application/json", headers=headers
        )


def of(error: Exception) -> Wrong:
    """What a request is told of whatever went wrong. A model's own fault is told by its name only."""
    if isinstance(error, Wrong):
        return error
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return Wrong(413, "the request's body is larger than this endpoint takes", code="body_too_large")
    if isinstance(error, web.HTTPException):
        if error.status == 405:
            return Wrong(405, "this path does not take this method", code="method_not_allowed")
        return Wrong(error.status, "there is no such path here", code="not_found")
    if isinstance(error, TimeoutError):
        return Wrong(504, "the model did not answer in time", code="timeout")
    return Wrong(500, f"the model failed with {type(error).__name__}; its log has the rest", code="model_failed")

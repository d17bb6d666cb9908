"""A call that no instance answers but the queue of asynchronous requests."""

from typing import TYPE_CHECKING

from gateway.admit import Admitted
from gateway.client import Client
from gateway.contract import Jobs
from gateway.errors import Refusal
from gateway.exchange import BROKEN, DRAINED, JSON

if TYPE_CHECKING:
    from gateway.core import Gateway


ASYNC = "v1/async/"
ENCODED = Refusal(415, "unsupported_encoding", "Send the body without a Content-Encoding.")


class Errand:
    """The owner of such a call. What was asked for is done even if the caller leaves meanwhile."""

    over = False

    def __init__(self, gateway: "Gateway", client: Client, admitted: Admitted, jobs: Jobs) -> None:
        self.gateway = gateway
        self.client = client
        self.admitted = admitted
        self.jobs = jobs

    def begin(self) -> None:
        request = self.client.request
        if request.encoding is not None and request.encoding != "identity":
            self._refuse(ENCODED)
        elif request.method == "POST":
            self.body_came()
        else:
            self.gateway.spawn(self._ask(b""))

    def body_came(self) -> None:
        body = self.client.body(self.gateway.limits)
        if isinstance(body, Refusal):
            self._refuse(body)
        elif body is not None:
            self.gateway.spawn(self._ask(body))

    async def _ask(self, body: bytes) -> None:
        request = self.client.request
        try:
            status, headers, answer = await self.jobs.answer(
                self.admitted, request.method, self.admitted.rest, request.headers, body
            )
        except Exception:
            self._refuse(BROKEN)
            raise
        if not self.over:
            self.client.answer(status, JSON, answer, headers)
            self._end()

    def _refuse(self, refusal: Refusal) -> None:
        if not self.over:
            self.client.answer(refusal.status, JSON, refusal.body(), refusal.headers)
            self._end()

    def _end(self) -> None:
        self.over = True
        self.client.over()

    def caller_left(self) -> None:
        if not self.over:
            self._end()

    def cut(self) -> None:
        self._refuse(DRAINED)

    def caller_ready(self) -> None:
        """Nothing was sent in parts."""

    def look(self, now: float) -> None:
        """The body has a time limit of its own, and the database answers or is away."""

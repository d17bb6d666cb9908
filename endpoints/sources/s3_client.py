"""botocore speaks S3: signatures, listings, errors, regions. Our own client carries it, which resolves, looks
at and connects to addresses itself, and nothing of this machine's AWS configuration or identity is used.
"""

import functools
import os
from collections.abc import Iterator
from typing import Any, Final

import botocore.session
import httpx2
from botocore import UNSIGNED
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.loaders import Loader

from endpoints.sources.network import whole

DEFAULT_REGION: Final = "us-east-1"
STATUS: Final = "tir-status"  # as it was received: botocore makes a 500 of a 200 that it can't read
# Of the session's variables those that would read this machine's files or environment.
NOT_OURS: Final[dict[str, tuple[None, None, str | None, None]]] = {
    "profile": (None, None, None, None),
    "region": (None, None, None, None),
    "ca_bundle": (None, None, None, None),
    "config_file": (None, None, os.devnull, None),
    "credentials_file": (None, None, os.devnull, None),
}


def connect(carrier: httpx2.Client, *, url: str, region: str, access_key: str, secret: str | None) -> Any:
    """An S3 client. Without access key it signs nothing. `url`: the service's, "" for Amazon's."""
    signed = bool(access_key and secret)
    settings: dict[str, Any] = {
        "region_name": region or DEFAULT_REGION,
        "signature_version": "s3v4" if signed else UNSIGNED,
        "s3": {"addressing_style": "path" if url else "auto"},
        "retries": {"mode": "standard", "total_max_attempts": 3},
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        "ignore_configured_endpoint_urls": True,
    }
    session = botocore.session.Session(session_vars=NOT_OURS)
    session.register_component("data_loader", _loader())
    client = session.create_client(
        "s3",
        endpoint_url=url or None,
        aws_access_key_id=access_key if signed else None,
        aws_secret_access_key=secret if signed else None,
        config=Config(**settings),
    )
    register: Any = client.meta.events.register
    register("before-send.s3", lambda request, **_: _carry(carrier, request))
    return client


@functools.cache
def _loader() -> Loader:
    """Keeps what it has read of the description of S3, which is long."""
    return Loader()


def _carry(carrier: httpx2.Client, request: AWSPreparedRequest) -> AWSResponse:
    headers = {"Accept-Encoding": "identity"} | {name: _text(value) for name, value in request.headers.items()}
    sent = carrier.build_request(request.method, request.url, headers=headers)  # all that we ask has no body
    answer = carrier.send(sent, stream=True, follow_redirects=False)
    received: Any = dict(answer.headers) | {STATUS: str(answer.status_code)}
    return AWSResponse(request.url, answer.status_code, received, _Raw(answer))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


class _Raw:
    """An answer's body as botocore reads it: a question's by `stream`, to keep all of it, a file's by `read`."""

    def __init__(self, answer: httpx2.Response) -> None:
        self._answer, self._left = answer, b""
        self._pieces: Iterator[bytes] | None = None

    def stream(self, **_: Any) -> Iterator[bytes]:
        try:
            yield whole(self._answer.iter_raw(), self._answer.url.host)
        finally:
            self._answer.close()

    def read(self, amount: int | None = None) -> bytes:
        if self._pieces is None:
            self._pieces = self._answer.iter_raw()
        if not self._left:
            self._left = b"".join(self._pieces) if amount is None else next(self._pieces, b"")
        piece, self._left = (self._left[:amount], self._left[amount:]) if amount else (self._left, b"")
        return piece

    def close(self) -> None:
        self._answer.close()

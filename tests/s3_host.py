"""An S3 service on this machine: moto's, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from botocore.session import Session
from moto.server import ThreadedMotoServer

ACCESS_KEY: Final = "AKIATEST"
SECRET_KEY: Final = "the-secret-half"


@contextmanager
def s3_host() -> Iterator[str]:
    """The address of an empty one."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def s3_bucket(objects: Mapping[str, bytes]) -> Iterator[Any]:
    """The owner's client of one with these in its bucket “models”; `client.meta.endpoint_url` is its address."""
    with s3_host() as address:
        client = owner("s3", address)
        client.create_bucket(Bucket="models")
        for key, data in objects.items():
            client.put_object(Bucket="models", Key=key, Body=data)
        yield client


def owner(service: str, address: str) -> Any:
    """A client that may do everything there."""
    keys: dict[str, Any] = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
    session: Any = Session()
    return session.create_client(service, "us-east-1", endpoint_url=address, **keys)

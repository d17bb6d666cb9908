"""A model in an S3 bucket, at Amazon or any service that speaks S3 (MinIO, Ceph, R2, …)."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from botocore.exceptions import ClientError, IncompleteReadError

from endpoints.sources.base import SourceProblem
from endpoints.sources.bucket import BucketSource, Item, changed
from endpoints.sources.download import PIECE, RETRIED, Digest, Interrupted, Stream
from endpoints.sources.network import client
from endpoints.sources.paths import folder
from endpoints.sources.s3_client import DEFAULT_REGION, connect
from endpoints.sources.s3_problems import S3_ERRORS, Asked, not_s3, problem_of

MD5: Final = re.compile(r"[0-9a-f]{32}")


def s3_source(spec: Mapping[str, Any], *, token: str | None, private: bool) -> BucketSource:
    """From the source's settings; `token` is the secret half of the access key."""
    bucket = S3Bucket(
        url=str(spec.get("url") or "").strip().rstrip("/"),
        region=str(spec.get("region") or "").strip(),
        name=str(spec.get("bucket") or "").strip().removeprefix("s3://").strip("/"),
        access_key=str(spec.get("access_key") or "").strip(),
        secret=(token or "").strip() or None,
        private=private,
    )
    return BucketSource(
        bucket, folder(spec.get("path")), str(spec.get("file") or "").strip(), str(spec.get("revision") or "")
    )


@dataclass(frozen=True)
class S3Bucket:
    """`url`: the service's address, "" for Amazon's. Without access key it asks as anybody. Times in seconds."""

    url: str
    region: str
    name: str
    access_key: str
    secret: str | None = field(repr=False)
    private: bool = True
    timeout: float = 10.0

    @property
    def address(self) -> str:
        return f"s3://{self.name}"

    @property
    def origin(self) -> str:
        return urlsplit(self.url).netloc or "Amazon S3"

    def items(self, prefix: str) -> Iterator[Item]:
        with self._asking():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
                if "Name" not in page and "KeyCount" not in page:
                    raise not_s3(self._asked())
                yield from (_item(one) for one in page.get("Contents", ()))

    def piece(self, item: Item, offset: int, size: int) -> bytes:
        if offset >= item.size:
            return b""
        with self._asking(item):
            answer = self._get(item, f"bytes={offset}-{offset + size - 1}")
            skip = 0 if str(answer.get("ContentRange", "")).startswith(f"bytes {offset}-") else offset
            piece = b""
            try:
                for part in answer["Body"].iter_chunks(PIECE):
                    piece += part
                    if len(piece) >= skip + size:  # some stores send the whole
                        break
            finally:
                answer["Body"].close()
        return piece[skip : skip + size]

    @contextmanager
    def stream(self, item: Item, offset: int) -> Iterator[Stream]:
        with self._asking(item, passing=True):
            answer = self._get(item, f"bytes={offset}-" if offset else "")
        said = str(answer.get("ContentRange", ""))
        try:
            yield Stream(offset if said.startswith(f"bytes {offset}-") else 0, answer["Body"].iter_chunks(PIECE))
        except IncompleteReadError:
            raise Interrupted("the connection ended early") from None
        finally:
            answer["Body"].close()

    def digest(self, item: Item) -> Digest | None:
        with self._asking(item):
            head = self._client.head_object(Bucket=self.name, Key=item.key, ChecksumMode="ENABLED")
        sha256 = str(head.get("ChecksumSHA256", ""))
        if sha256 and "-" not in sha256:  # with a hyphen it is made of the digests of parts
            return Digest.of_base64("sha256", sha256)
        encrypted = "kms" in str(head.get("ServerSideEncryption", "")) or head.get("SSECustomerAlgorithm")
        if MD5.fullmatch(item.tag) and not encrypted:
            return Digest("md5", item.tag)
        return None

    def _get(self, item: Item, span: str) -> Any:
        more = {"Range": span} if span else {}
        return self._client.get_object(Bucket=self.name, Key=item.key, IfMatch=f'"{item.tag}"', **more)

    @cached_property
    def _client(self) -> Any:
        address = urlsplit(self.url)
        if self.url and (address.scheme not in {"http", "https"} or not address.hostname or address.username):
            said = f"“{self.url}” is no address of an S3 service. It looks like https://s3.example.com."
            raise SourceProblem("malformed_url", said, "url")
        if self.access_key and not self.secret:
            said = f"Choose the secret that holds the other half of access key “{self.access_key}”."
            raise SourceProblem("bad_secret", said, "token_secret")
        carrier = client(private=self.private, timeout=self.timeout)
        return connect(carrier, url=self.url, region=self.region, access_key=self.access_key, secret=self.secret)

    def _asked(self, item: Item | None = None) -> Asked:
        region = self.region or DEFAULT_REGION
        return Asked(self.url or "Amazon S3", self.name, region, self.access_key, item.key if item else "")

    @contextmanager
    def _asking(self, item: Item | None = None, *, passing: bool = False) -> Iterator[None]:
        """Gives words to what is refused; `passing`: a broken connection and a busy store are left to be tried
        again."""
        try:
            yield
        except S3_ERRORS as error:
            status = _status(error)
            if item and status == 412:
                raise changed(self.address, item) from None
            if passing and isinstance(error, httpx2.TransportError):
                raise
            if passing and status in RETRIED:
                raise Interrupted(f"the server answered {status}") from None
            raise problem_of(error, self._asked(item)) from None


def _item(listed: Mapping[str, Any]) -> Item:
    return Item(listed["Key"], listed["Size"], listed["ETag"].strip('"'))


def _status(error: Exception) -> int:
    if not isinstance(error, ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))

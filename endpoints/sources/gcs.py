"""A model in a Google Cloud Storage bucket, by its JSON API.

Without Google's own library: that one looks for this machine's identity, has its own idea of patience, and
connects where it likes.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from endpoints.sources.base import SourceProblem
from endpoints.sources.bucket import BucketSource, Item, changed
from endpoints.sources.download import Digest, Stream, http_piece, http_stream
from endpoints.sources.gcs_account import Account
from endpoints.sources.gcs_problems import not_gcs, refused
from endpoints.sources.network import client, unreachable
from endpoints.sources.paths import folder

GOOGLE = "https://storage.googleapis.com"
LISTED = "nextPageToken,items(name,size,generation,md5Hash,crc32c)"


def gcs_source(spec: Mapping[str, Any], *, token: str | None, private: bool) -> BucketSource:
    """From the source's settings; `token` is a service account's key as JSON, None to ask as anybody."""
    bucket = GoogleBucket(
        url=str(spec.get("url") or "").strip().rstrip("/") or GOOGLE,
        name=str(spec.get("bucket") or "").strip().removeprefix("gs://").strip("/"),
        key=(token or "").strip() or None,
        private=private,
    )
    return BucketSource(
        bucket, folder(spec.get("path")), str(spec.get("file") or "").strip(), str(spec.get("revision") or "")
    )


@dataclass(frozen=True)
class GoogleBucket:
    """`url`: the API's address. Times in seconds."""

    url: str
    name: str
    key: str | None = field(repr=False)
    private: bool = True
    timeout: float = 10.0
    stall: float = 30.0

    @property
    def address(self) -> str:
        return f"gs://{self.name}"

    @property
    def origin(self) -> str:
        return urlsplit(self.url).netloc

    def items(self, prefix: str) -> Iterator[Item]:
        asked = {"prefix": prefix, "fields": LISTED, "maxResults": "1000"}
        while True:
            page = self._page(asked)
            yield from (_item(one) for one in page.get("items", ()))
            if not page.get("nextPageToken"):
                return
            asked["pageToken"] = page["nextPageToken"]

    def piece(self, item: Item, offset: int, size: int) -> bytes:
        with self._asking(), self._client() as asked:
            return http_piece(asked, self._media(item), self._headers, offset, size, self._raise_for(item))

    @contextmanager
    def stream(self, item: Item, offset: int) -> Iterator[Stream]:
        with (
            self._client() as asked,
            http_stream(
                asked, self._media(item), self._headers, offset, self._raise_for(item), self.stall
            ) as stream,
        ):
            yield stream

    def digest(self, item: Item) -> Digest | None:
        return item.digest

    def _page(self, asked: Mapping[str, str]) -> dict[str, Any]:
        where = f"{self.url}/storage/v1/b/{quote(self.name, safe='')}/o"
        with self._asking(), self._client() as to:
            answer = to.get(where, params=asked, headers=self._headers)
        if answer.is_error:
            raise refused(answer, self.url, self.name, self._account)
        try:
            page = answer.json()
        except ValueError:
            raise not_gcs(self.url) from None
        if not isinstance(page, dict) or not ({"items", "kind", "nextPageToken"} & set(page) or page == {}):
            raise not_gcs(self.url)
        return page

    def _raise_for(self, item: Item) -> Any:
        def raise_for_status(answer: httpx2.Response) -> None:
            if answer.status_code == 404:
                raise changed(self.address, item)
            if answer.is_error:
                answer.read()
                raise refused(answer, self.url, self.name, self._account)

        return raise_for_status

    def _media(self, item: Item) -> str:
        name = quote(item.key, safe="")
        return f"{self.url}/storage/v1/b/{quote(self.name, safe='')}/o/{name}?alt=media&generation={item.tag}"

    @property
    def _headers(self) -> dict[str, str]:
        """What is stored compressed is taken as it is stored: its size and digest are of that."""
        token = self._account.token() if self._account else None
        return {"Accept-Encoding": "gzip"} | ({"Authorization": f"Bearer {token}"} if token else {})

    @cached_property
    def _account(self) -> Account | None:
        return Account.of(self.key, private=self.private, timeout=self.timeout) if self.key else None

    def _client(self) -> httpx2.Client:
        if urlsplit(self.url).scheme not in {"http", "https"} or not urlsplit(self.url).hostname:
            said = f"“{self.url}” is no address of a storage service. Leave it empty for Google's own."
            raise SourceProblem("malformed_url", said, "url")
        return client(private=self.private, timeout=self.timeout)

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except httpx2.HTTPError as error:
            raise unreachable(self.url, error) from None


def _item(listed: Mapping[str, Any]) -> Item:
    """Composite objects have a crc32c only."""
    digest = None
    if listed.get("md5Hash"):
        digest = Digest.of_base64("md5", listed["md5Hash"])
    elif listed.get("crc32c"):
        digest = Digest.of_base64("crc32c", listed["crc32c"])
    return Item(listed["name"], int(listed["size"]), str(listed["generation"]), digest)

"""Google Cloud Storage's answers in words."""

from typing import Any

import httpx2

from endpoints.sources.base import SourceProblem
from endpoints.sources.gcs_account import Account


def refused(answer: httpx2.Response, url: str, bucket: str, account: Account | None) -> SourceProblem:
    """What an error means, and what to do."""
    status, said = answer.status_code, _message(answer)
    if said is None and status < 500:
        return not_gcs(url)
    if status == 404:
        where = f"There is no bucket “{bucket}” at {url}. Check its name."
        return SourceProblem("no_bucket", where, "bucket")
    if status in {401, 403}:
        return _denied(bucket, account)
    if status == 429 or status >= 500:
        return SourceProblem("busy", f"{url} has a problem of its own ({status}). Try again.", passing=True)
    if status == 400 and "bucket" in str(said).lower():
        return SourceProblem("no_bucket", f"“{bucket}” is no name of a bucket.", "bucket")
    return SourceProblem("gcs_error", f"{url} answered {status} about {bucket}: {str(said)[:200]}")


def not_gcs(url: str) -> SourceProblem:
    said = f"{url} doesn't answer as Google Cloud Storage does. Leave the address empty for Google's own."
    return SourceProblem("not_gcs", said, "url")


def _denied(bucket: str, account: Account | None) -> SourceProblem:
    if account is None:
        said = f"gs://{bucket} isn't public. Choose the secret that holds a service account's key."
        return SourceProblem("forbidden", said, "token_secret")
    said = f"{account.email} may not read gs://{bucket}. Give it the role Storage Object Viewer on the bucket."
    return SourceProblem("forbidden", said, "token_secret")


def _message(answer: httpx2.Response) -> str | None:
    """The API's own words; None if it wasn't the API that answered."""
    try:
        found: Any = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return str(found.get("message", "")) if isinstance(found, dict) else str(found)

"""An S3 store's answers in words: what is wrong and what to do, for every way it can say no."""

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from botocore.parsers import ResponseParserError

from endpoints.sources.base import SourceProblem
from endpoints.sources.network import unreachable
from endpoints.sources.s3_client import STATUS

S3_ERRORS: Final[tuple[type[Exception], ...]] = (
    ClientError,
    BotoCoreError,
    ResponseParserError,
    httpx2.HTTPError,
    ValueError,  # what botocore raises for an address that is none
)
WRONG_REGION: Final = frozenset(
    {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException", "301"}
)
PASSING: Final = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "503"})


@dataclass(frozen=True)
class Asked:
    """What was asked, to name it in the answer."""

    service: str
    bucket: str
    region: str
    access_key: str
    key: str = ""


def problem_of(error: Exception, asked: Asked) -> SourceProblem:
    if isinstance(error, ClientError):
        return _answered(error, asked)
    if isinstance(error, httpx2.HTTPError):
        return unreachable(asked.service, error)
    if isinstance(error, ParamValidationError):
        said = f"“{asked.bucket}” is no name of a bucket: 3 to 63 small letters, digits, dots and hyphens."
        return SourceProblem("no_bucket", said, "bucket")
    if isinstance(error, ResponseParserError):
        return not_s3(asked)
    return SourceProblem(
        "malformed_url", f"“{asked.service}” can't be used as the address of an S3 service.", "url"
    )


def not_s3(asked: Asked) -> SourceProblem:
    said = f"{asked.service} doesn't answer as S3 does. Give the address of its S3 API, not of its web console."
    return SourceProblem("not_s3", said, "url")


def _answered(error: ClientError, asked: Asked) -> SourceProblem:
    said: dict[str, Any] = dict(error.response.get("Error", {}))
    meta: dict[str, Any] = dict(error.response.get("ResponseMetadata", {}))
    code, headers = str(said.get("Code", "")), meta.get("HTTPHeaders", {})
    if code in WRONG_REGION:
        return _wrong_region(said.get("Region") or headers.get("x-amz-bucket-region"), asked)
    if code == "RequestTimeTooSkewed":
        return _skewed(said, headers)
    if code.isdecimal() and headers.get(STATUS) == "200":
        return not_s3(asked)
    if code in PASSING:
        return SourceProblem(
            "busy", f"{asked.service} has a problem of its own ({code}). Try again.", passing=True
        )
    if code in {"NoSuchKey", "404"} and asked.key:
        return SourceProblem("gone", f"s3://{asked.bucket}/{asked.key} is no longer there.", "path")
    if code.isdecimal() and code != "403" and not headers.get("x-amz-request-id"):
        return not_s3(asked)
    return _refused(code, str(said.get("Message", "")), asked)


def _refused(code: str, message: str, asked: Asked) -> SourceProblem:
    if code in {"AccessDenied", "AllAccessDisabled", "AccountProblem", "403"}:
        return _denied(asked)
    words = {
        "NoSuchBucket": (
            "no_bucket",
            f"{asked.service} has no bucket “{asked.bucket}”. Check its name, and the service's address.",
            "bucket",
        ),
        "InvalidBucketName": ("no_bucket", f"“{asked.bucket}” is no name of a bucket.", "bucket"),
        "InvalidAccessKeyId": (
            "bad_key",
            f"{asked.service} knows no access key “{asked.access_key}”. Check the key's id.",
            "access_key",
        ),
        "SignatureDoesNotMatch": (
            "bad_secret",
            f"The secret key isn't the one of access key “{asked.access_key}”. Store the right one in the secret.",
            "token_secret",
        ),
        "ExpiredToken": ("bad_key", "The access key has expired. Use another one.", "access_key"),
        "InvalidToken": ("bad_key", "The access key is a temporary one. Use a lasting one.", "access_key"),
        "InvalidObjectState": (
            "archived",
            f"s3://{asked.bucket}/{asked.key} is in an archive. Restore it first.",
            "path",
        ),
    }
    if code in words:
        return SourceProblem(*words[code])
    return SourceProblem("s3_error", f"{asked.service} answered {code} about {asked.bucket}: {message[:200]}")


def _denied(asked: Asked) -> SourceProblem:
    if not asked.access_key:
        said = (
            f"s3://{asked.bucket} may not be read without a key. "
            "Give an access key, and the secret with its other half."
        )
        return SourceProblem("forbidden", said, "access_key")
    what = "s3:GetObject" if asked.key else "s3:ListBucket and s3:GetObject"
    said = f"The access key “{asked.access_key}” may not read s3://{asked.bucket}. It needs {what} there."
    return SourceProblem("forbidden", said, "access_key")


def _wrong_region(right: str | None, asked: Asked) -> SourceProblem:
    if right and right != asked.region:
        said = f"The bucket “{asked.bucket}” is in the region {right}, not {asked.region}. Give {right} as region."
    else:
        said = f"The bucket “{asked.bucket}” is in another region than {asked.region}. Give its region."
    return SourceProblem("wrong_region", said, "region")


def _skewed(said: dict[str, Any], headers: dict[str, str]) -> SourceProblem:
    theirs = said.get("ServerTime") or _iso(headers.get("date", ""))
    ours = f", and here it is {said['RequestTime']}" if said.get("RequestTime") else ""
    return SourceProblem(
        "clock_skew",
        f"The clock of the machine that the console runs on is wrong: the store's says {theirs}{ours}. "
        "Set it (for instance with NTP), then try again.",
    )


def _iso(date: str) -> str:
    return parsedate_to_datetime(date).isoformat() if date else "something else"

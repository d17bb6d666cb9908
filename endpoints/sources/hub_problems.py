"""The Hub's answers in words: what is wrong and what to do, for every way it can say no."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from endpoints.sources.base import SourceProblem

HUB_ERRORS: tuple[type[Exception], ...] = (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    httpx2.HTTPError,
)
HUB_ANSWERS: tuple[type[Exception], ...] = (HfHubHTTPError, HFValidationError)  # not a broken connection
# What the library makes of an answer that is no Hub's.
NOT_A_HUB: tuple[type[Exception], ...] = (ValueError, KeyError, TypeError)


@dataclass(frozen=True)
class Asked:
    """What was asked, to name it in the answer."""

    hub: str
    model_id: str
    revision: str
    with_token: bool


def problem_of(error: Exception, asked: Asked) -> SourceProblem:
    if isinstance(error, HFValidationError):
        return malformed(asked.model_id)
    if isinstance(error, OfflineModeIsEnabled):
        return SourceProblem("offline", "HF_HUB_OFFLINE is set where the console runs: the Hub is switched off.")
    if isinstance(error, HfHubHTTPError):
        return _answered(error, asked)
    if isinstance(error, httpx2.TimeoutException):
        return SourceProblem("timeout", f"{asked.hub} didn't answer in time. Try again.", passing=True)
    if isinstance(error, httpx2.HTTPError):
        return SourceProblem(
            "no_network",
            f"{asked.hub} can't be reached from here ({str(error) or type(error).__name__}). "
            "Check the network, the proxy and the Hub's address.",
            passing=True,
        )
    return SourceProblem("hub_error", f"{asked.hub} didn't answer as a Hub does. Check the Hub's address.")


def malformed(model_id: str) -> SourceProblem:
    address = urlsplit(model_id)
    inside = address.path.strip("/").split("/")
    hint = f" Did you mean {'/'.join(inside[:2])}?" if address.scheme and len(inside) > 1 else ""
    return SourceProblem(
        "malformed_id",
        f"“{model_id}” is not a model id. It looks like owner/name, such as HuggingFaceTB/SmolLM2-135M.{hint}",
        "model_id",
    )


def _answered(error: HfHubHTTPError, asked: Asked) -> SourceProblem:
    page = f"{asked.hub}/{asked.model_id}"
    if isinstance(error, GatedRepoError):
        return _gated(asked, page)
    if isinstance(error, RevisionNotFoundError):
        said = f"{asked.model_id} has no branch, tag or commit “{asked.revision}”. Most models have “main”."
        return SourceProblem("no_revision", said, "revision")
    if isinstance(error, RemoteEntryNotFoundError):
        return SourceProblem("no_file", f"{page} has no such file at this revision.", "file")
    if isinstance(error, DisabledRepoError):
        return SourceProblem("disabled", f"{page} was disabled by the Hub. Choose another model.", "model_id")
    if isinstance(error, RepositoryNotFoundError):
        return _not_found(asked)
    return _status(error, asked)


def _gated(asked: Asked, page: str) -> SourceProblem:
    if asked.with_token:
        said = f"The token's owner has no access to {asked.model_id}. Accept its terms at {page}, then try again."
        return SourceProblem("gated", said, "token_secret")
    said = f"{asked.model_id} is gated. Accept its terms at {page}, then choose a secret with your Hub token here."
    return SourceProblem("gated", said, "token_secret")


def _not_found(asked: Asked) -> SourceProblem:
    if asked.with_token:
        said = f"{asked.hub} has no model {asked.model_id}, or it is private and the token has no access to it."
    else:
        said = (
            f"{asked.hub} has no model {asked.model_id}, or it is private. Check the spelling; "
            "for a private model choose a secret with a Hub token."
        )
    return SourceProblem("not_found", said, "model_id")


def _status(error: HfHubHTTPError, asked: Asked) -> SourceProblem:
    status = error.response.status_code
    if status == 401:
        said = "The Hub doesn't accept the token: it is wrong, expired or revoked. Store a new one in the secret."
        return SourceProblem("bad_token", said, "token_secret")
    if status == 403:
        said = f"The token isn't allowed to read {asked.model_id}. Give it read access in the Hub's settings."
        return SourceProblem("forbidden", said, "token_secret")
    if status == 429:
        after = error.response.headers.get("Retry-After")
        wait = f"in {after} seconds" if after else "in a few minutes"
        said = f"{asked.hub} asks for fewer requests (429). Try again {wait}, or use a token for a higher limit."
        return SourceProblem("rate_limited", said, passing=True)
    if status >= 500:
        return SourceProblem(
            "hub_error", f"{asked.hub} has a problem of its own ({status}). Try again.", passing=True
        )
    return SourceProblem("hub_error", f"{asked.hub} answered {status} about {asked.model_id}.", "model_id")

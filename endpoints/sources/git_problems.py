"""What Git complains of, in words for the person who wrote the settings."""

import re
from typing import Final

import httpx2

from endpoints.sources.base import SourceProblem
from endpoints.sources.git_client import Access
from endpoints.sources.git_ssh import other_host
from endpoints.sources.network import bad_certificate, client

STATUS: Final = re.compile(r"requested URL returned error: (\d{3})")
CREDENTIAL: Final = re.compile(r"Authentication failed|could not read (Username|Password)|Access denied")
NOBODY: Final = re.compile(
    r"Could not resolve|Failed to connect|Connection (refused|timed out|reset)|No route to host|"
    r"Network is unreachable|Operation timed out|connect to host|Connection closed by"
)
CUT: Final = re.compile(r"early EOF|unexpected disconnect|RPC failed|hung up|too slow|invalid index-pack")
FULL: Final = re.compile(r"No space left|[Qq]uota exceeded")
MISSING: Final = re.compile(
    r"repository .*not found|does not exist|does not appear to be a git repository|No such file", re.IGNORECASE
)
NO_OBJECT: Final = re.compile(r"not our ref|unadvertised object|couldn't find remote ref|no such remote ref")


def problem_of(complaint: str, access: Access, revision: str = "") -> SourceProblem:
    """The first of these that fits: certificates, keys, credentials, commits, repositories, connections."""
    if "SSL certificate" in complaint or "certificate verif" in complaint:
        return bad_certificate(access.address.host)
    if "Host key verification failed" in complaint or "HOST IDENTIFICATION HAS CHANGED" in complaint:
        return other_host(access.address, access.place() or access.address.host)
    if FULL.search(complaint):
        return SourceProblem("disk_full", "The disk ran full while the repository was fetched. Free some space.")
    if "No user exists" in complaint:
        said = (
            "SSH needs the user that the console runs as to have an entry in /etc/passwd. Add one, or use https."
        )
        return SourceProblem("not_installed", said)
    if "Permission denied" in complaint:
        said = (
            f"{access.address.host} doesn't accept the key for the user {access.address.user}. "
            "Add its public half there (a deploy key that may read is enough), or store another one."
        )
        return SourceProblem("bad_key", said, "token_secret")
    if found := STATUS.search(complaint):
        return _answered(int(found[1]), access)
    if CREDENTIAL.search(complaint):
        return _answered(401, access)
    if NO_OBJECT.search(complaint):
        return no_revision(access, revision)
    return _unheard(complaint, access)


def _unheard(complaint: str, access: Access) -> SourceProblem:
    """The server was not reached, said nothing that Git understands, or was cut off."""
    if CUT.search(complaint):
        said = f"The connection to {access.address.host} ended early. Try again: what is here is kept."
        return SourceProblem("stalled", said, "url", passing=True)
    if NOBODY.search(complaint):
        said = f"{access.address.host} can't be reached at port {access.address.port}. Check address and network."
        return SourceProblem("no_network", said, "url", passing=True)
    if MISSING.search(complaint):
        return _answered(404, access)
    said = f"{access.address.url} doesn't answer as a Git server does. Give the address that you would clone from."
    return SourceProblem("not_git", said, "url")


def no_revision(access: Access, revision: str, branches: list[str] | None = None) -> SourceProblem:
    """`branches`: those that there are, to choose from."""
    there = f" There is: {', '.join(branches[:8])}." if branches else ""
    said = f"{access.address.url} has no branch, tag or commit “{revision}”.{there}"
    return SourceProblem("no_revision", said, "revision")


def _answered(status: int, access: Access) -> SourceProblem:
    where = access.address.url
    if status == 401:
        return _unauthorized(access)
    if status == 403:
        said = f"The token may not read {where}. Give it the right to read the repository's contents."
        return SourceProblem("forbidden", said, "token_secret")
    if status == 404:
        hint = "" if access.secret else " If it is private, choose the secret with a token for it."
        said = f"There is no repository at {where}, or the credential may not see it.{hint}"
        return SourceProblem("not_found", said, "url")
    if 300 <= status < 400:
        return _moved(access)
    if status == 429 or status >= 500:
        said = f"{access.address.host} has a problem of its own ({status}). Try again."
        return SourceProblem("busy", said, passing=True)
    return SourceProblem(
        "not_git", f"{where} answered {status}. Give the address that you would clone from.", "url"
    )


def _unauthorized(access: Access) -> SourceProblem:
    where = access.address.url
    if access.secret:
        user = f" with the user name “{access.username}”" if access.username else ""
        said = f"{access.address.host} doesn't accept the token{user}: it is wrong, expired or revoked."
        return SourceProblem("bad_token", said, "token_secret")
    said = f"{where} isn't public, or isn't there. Choose the secret with a token that may read it."
    return SourceProblem("unauthorized", said, "token_secret")


def _moved(access: Access) -> SourceProblem:
    """The credential isn't carried elsewhere; the new address is asked for without it."""
    question = f"{access.address.url}/info/refs?service=git-upload-pack"
    try:
        with client(private=access.private, timeout=access.timeout, follow_redirects=False) as asked:
            there = asked.get(question).headers.get("Location", "")
    except httpx2.HTTPError:
        there = ""
    now = (
        f" to {there.partition('/info/refs')[0][:200]}. Give that address." if there else ". Give its new address."
    )
    return SourceProblem("moved", f"{access.address.url} was moved{now}", "url")

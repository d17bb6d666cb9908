"""Signed tokens: which of the console's keys signed one, and what it says. Whether it still holds is the table's
to say, because keys are revoked and members leave while tokens live.

`accounts.claims` has the format. Nothing but EdDSA is believed, whatever a token's own head asks for.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from accounts.claims import ALGORITHM, AUDIENCE, REQUIRED

PERSON, KEY = "person", "key"
MOST_REMEMBERED = 4096
# What the clock decides is decided by whoever asks, with its own time.
TIMELESS: Any = {"require": REQUIRED, "strict_aud": True, "verify_exp": False, "verify_iat": False}
TIMELESS |= {"verify_nbf": False}


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom signed tokens may come from and speak for: `signers` are Ed25519 public keys by id, `callers` pairs
    of (person, project) of those who may call."""

    issuer: str = ""
    signers: Mapping[str, bytes] = field(default_factory=dict)
    callers: frozenset[tuple[int, int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says: it speaks for a key or a person; `endpoints` None is all that those may call."""

    project_id: int
    key_id: int | None
    person_id: int | None
    endpoints: frozenset[int] | None
    scopes: frozenset[str]
    issued_at: datetime
    expires_at: datetime


class UnknownSigner(Exception):
    """No key of the console is known by the id that the token names."""


class Unbelievable(Exception):
    """No signature, a wrong one, or none of ours."""


class Proof(NamedTuple):
    """That the public key of a signer proved what a token says."""

    signer: str
    public: bytes
    claims: Claims


_remembered: dict[tuple[bytes, str], Proof] = {}


def read(token: str, trust: Trust) -> Claims:
    """What the token says, once its signature proved right. Raises UnknownSigner, Unbelievable.

    A proof is costly and stays true, so it is remembered by the token's digest, for as long as its signer is
    trusted with the same key.
    """
    mark = hashlib.sha256(token.encode()).digest(), trust.issuer
    proof = _remembered.get(mark)
    signer = proof.signer if proof else _signer(token)
    public = trust.signers.get(signer)
    if public is None:
        raise UnknownSigner
    if proof is None or proof.public != public:
        proof = Proof(signer, public, _proved(token, trust.issuer, public))
        if len(_remembered) >= MOST_REMEMBERED:
            del _remembered[next(iter(_remembered))]
        _remembered[mark] = proof
    return proof.claims


def _signer(token: str) -> str:
    """The id of the key that it says signed it."""
    try:
        signer = jwt.get_unverified_header(token).get("kid")
    except (jwt.InvalidTokenError, RecursionError):
        raise Unbelievable from None
    if not isinstance(signer, str):
        raise Unbelievable
    return signer


def _proved(token: str, issuer: str, public: bytes) -> Claims:
    key = Ed25519PublicKey.from_public_bytes(public)
    try:
        said = jwt.decode(token, key, algorithms=[ALGORITHM], audience=AUDIENCE, issuer=issuer, options=TIMELESS)
        kind, _, number = str(said["sub"]).partition(":")
        if kind not in (KEY, PERSON):
            raise Unbelievable
        endpoints = said.get("endpoints")
        return Claims(
            project_id=int(said["project"]),
            key_id=int(number) if kind == KEY else None,
            person_id=int(number) if kind == PERSON else None,
            endpoints=None if endpoints is None else frozenset(map(int, endpoints)),
            scopes=frozenset(str(said["scope"]).split()),
            issued_at=datetime.fromtimestamp(said["iat"], UTC),
            expires_at=datetime.fromtimestamp(said["exp"], UTC),
        )
    except (jwt.InvalidTokenError, ValueError, TypeError, OverflowError, OSError, RecursionError):
        raise Unbelievable from None

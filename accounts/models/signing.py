"""The keys that the console signs short-lived tokens with."""

from __future__ import annotations

import base64
import hashlib
import logging
from datetime import datetime, timedelta

from cryptography.fernet import InvalidToken
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django.db import models, transaction
from django.db.models import Q

from accounts import bell
from accounts.claims import LONGEST
from accounts.sealing import box

log = logging.getLogger(__name__)

AHEAD = timedelta(minutes=10)  # a new key is published this long before it signs, for those who cache the set


class SigningKeyQuerySet(models.QuerySet["SigningKey"]):
    def published(self, at: datetime) -> SigningKeyQuerySet:
        """Those that may have signed a token that still lives, or soon will."""
        return self.filter(Q(retired_at=None) | Q(retired_at__gt=at - LONGEST)).order_by("valid_from", "pk")

    def signing(self, at: datetime) -> SigningKeyQuerySet:
        live = self.filter(valid_from__lte=at).filter(Q(retired_at=None) | Q(retired_at__gt=at))
        return live.order_by("-valid_from", "-pk")


class SigningKey(models.Model):
    """An Ed25519 pair: signs from `valid_from` until `retired_at`, and is believed an hour longer.

    `kid` is the key's thumbprint (RFC 7638); the private half is sealed as secrets are.
    """

    kid = models.CharField(max_length=43, unique=True, editable=False)
    public = models.BinaryField(max_length=32, editable=False)
    sealed = models.BinaryField(editable=False)
    valid_from = models.DateTimeField(editable=False)
    retired_at = models.DateTimeField(null=True, editable=False)

    objects = SigningKeyQuerySet.as_manager()

    def __str__(self) -> str:
        return self.kid

    @classmethod
    def make(cls, *, valid_from: datetime) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        sealed = box().encrypt(private.private_bytes_raw())
        bell.ring_gateway()
        return cls.objects.create(kid=thumbprint(public), public=public, sealed=sealed, valid_from=valid_from)

    @classmethod
    def current(cls, *, at: datetime) -> tuple[str, Ed25519PrivateKey]:
        """The id and private half of the key that signs now; the first call makes the first.

        One that no encryption key opens is as good as lost, so a fresh one takes over.
        """
        for key in cls.objects.signing(at):
            try:
                return key.kid, key.private()
            except InvalidToken:
                log.error("The signing key %s can't be decrypted; another is used.", key.kid)  # noqa: TRY400
        made = cls.make(valid_from=at)
        return made.kid, made.private()

    @classmethod
    @transaction.atomic
    def rotate(cls, *, at: datetime, now: bool = False) -> SigningKey:
        """A new key takes over, announced `AHEAD`; the old ones sign until then.

        With `now` (a private half became known) the old ones are forgotten: their tokens are refused from now on.
        """
        if now:
            cls.objects.all().delete()
            return cls.make(valid_from=at)
        takes_over = at + (AHEAD if cls.objects.signing(at).exists() else timedelta())
        cls.objects.filter(retired_at=None).update(retired_at=takes_over)
        cls.objects.filter(retired_at__lt=at - 2 * LONGEST).delete()
        return cls.make(valid_from=takes_over)

    def private(self) -> Ed25519PrivateKey:
        """Raises InvalidToken when no encryption key opens it."""
        return Ed25519PrivateKey.from_private_bytes(box().decrypt(bytes(self.sealed)))

    def as_jwk(self) -> dict[str, str]:
        public = {"crv": "Ed25519", "kty": "OKP", "x": _base64url(bytes(self.public))}
        return public | {"kid": self.kid, "use": "sig", "alg": "EdDSA"}


def thumbprint(public: bytes) -> str:
    text = f'{{"crv":"Ed25519","kty":"OKP","x":"{_base64url(public)}"}}'
    return _base64url(hashlib.sha256(text.encode()).digest())


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

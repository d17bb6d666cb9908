"""Encryption of what the database keeps and nobody may read there: ENCRYPTION_KEYS, newest first."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, MultiFernet
from django.conf import settings


def box() -> MultiFernet:
    """Seals with the newest key and opens with any; without one, a key made from SECRET_KEY does both."""
    keys: list[str] = list(settings.ENCRYPTION_KEYS)
    if not keys:
        derived = hashlib.sha256(b"secrets:" + settings.SECRET_KEY.encode()).digest()
        keys = [base64.urlsafe_b64encode(derived).decode()]
    return MultiFernet([Fernet(key) for key in keys])

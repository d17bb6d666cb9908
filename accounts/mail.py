"""Mail to people, if the installation names a mail server (EMAIL_HOST); else none is sent.

It is posted outside of the request, so that an answer takes as long for an address we know as for one we don't.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from smtplib import SMTPException

from django.conf import settings
from django.core.mail import EmailMessage

log = logging.getLogger(__name__)
_posting = ThreadPoolExecutor(max_workers=2, thread_name_prefix="mail")


def configured() -> bool:
    return bool(settings.EMAIL_HOST)


def post(to: str, subject: str, body: str) -> None:
    """Send soon; a failure is logged without the body, which may hold a link that lets somebody in."""
    _posting.submit(_send, EmailMessage(subject, body, to=[to]))


def _send(message: EmailMessage) -> None:
    try:
        message.send()
    except (SMTPException, OSError) as problem:
        log.error("Mail “%s” was not sent: %s", message.subject, problem)  # noqa: TRY400 (the cause says enough)

"""Whether a data folder was prepared by exactly this code, so that a second start can go straight on.

It only decides the order: what is missing in the database is looked for at every start all the same.
"""

from __future__ import annotations

import hashlib

from tir_console.up.folder import Folder
from tir_console.up.options import BASE_DIR

NAME = "prepared"
WATCHED = ("*/migrations/*.py", "requirements.lock", "tir_console/up/catalogue.py")


def fingerprint(database_url: str) -> str:
    digest = hashlib.sha256(database_url.encode())
    for pattern in WATCHED:
        for path in sorted(BASE_DIR.glob(pattern)):
            digest.update(path.relative_to(BASE_DIR).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def is_fresh(folder: Folder, print_: str) -> bool:
    try:
        return (folder.run / NAME).read_text(encoding="ascii") == print_
    except OSError:
        return False


def remember(folder: Folder, print_: str) -> None:
    folder.write(NAME, print_)

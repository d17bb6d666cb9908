"""Telling webhooks: signed, again and again for a day, and never at an address that is nobody's business."""

import asyncio
import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings as django_settings
from django.utils import timezone
from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

from accounts.refused import Refused
from gateway.jobs import address, queue, webhooks
from gateway.jobs.couriers import MOST, Couriers
from gateway.jobs.judge import SUCCEEDED, End
from gateway.jobs.models import AsyncRequest, Told, WebhookSecret
from tests import make
from tests.gateway.jobs.harness import World, world
from tests.gateway.jobs.receiver import receiver
from tests.wait import until

FORBIDDEN = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "168.63.129.16",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "192.0.2.7",
    "::1",
    "::",
    "fc00::1",
    "fe80::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
]
NEVER = [
    "169.254.169.254",
    "168.63.129.16",
    "0.0.0.0",
    "224.0.0.1",
    "::ffff:169.254.169.254",
    "fe80::1",
    "ff02::1",
]
OPEN = ["93.184.216.34", "8.8.8.8", "2606:2800:220:1:248:1893:25c8:1946", "64:ff9b::808:808"]


class TestAddresses:
    @pytest.mark.parametrize("text", FORBIDDEN)
    def test_what_is_not_public_is_refused_in_a_url_and_behind_a_name(self, text: str, names: "Names") -> None:
        host = f"[{text}]" if ":" in text else text
        with pytest.raises(address.Refused):
            address.checked(f"https://{host}/hook", private=False)
        names.answers = [[text]]
        tried = sent("http://hook.test/")
        assert (tried.final, tried.status) == (True, None)
        assert str(ipaddress.ip_address(text)) in tried.error

    @pytest.mark.parametrize("text", OPEN)
    def test_what_is_public_is_not(self, text: str) -> None:
        address.refuse(ipaddress.ip_address(text), private=False)

    @pytest.mark.parametrize("text", NEVER)
    def test_the_setting_lets_no_metadata_server_be_asked(self, text: str) -> None:
        with pytest.raises(address.Refused):
            address.refuse(ipaddress.ip_address(text), private=True)

    @pytest.mark.parametrize(
        "url",
        [
            "",
            "hook",
            "ftp://example.com/",
            "file:///etc/passwd",
            "https:///x",
            "https://a:b@example.com/",
            "//x.y",
        ],
    )
    def test_what_is_no_address_of_a_webhook_is_refused(self, url: str) -> None:
        with pytest.raises(address.Refused):
            address.checked(url, private=True)

    @pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost"])
    def test_other_ways_to_write_this_machine_are_seen_through_when_it_is_told(self, host: str) -> None:
        tried = sent(f"http://{host}:9/hook")
        assert tried.final
        assert "127.0.0.1" in tried.error or "::1" in tried.error

    @pytest.mark.parametrize("host", ["a..b", "a" * 70 + ".test", "nothing.invalid"])
    def test_a_name_that_leads_nowhere_is_tried_again(self, host: str) -> None:
        tried = sent(f"http://{host}/")
        assert (tried.ok, tried.final) == (False, False)

    def test_one_private_address_among_public_ones_is_enough(self, names: "Names") -> None:
        names.answers = [["93.184.216.34", "10.0.0.1"]]
        assert sent("http://hook.test/").final

    def test_a_name_that_changes_its_mind_is_asked_once_and_connected_to_as_it_was(
        self, names: "Names", private: None
    ) -> None:
        names.answers = [["127.0.0.1"], ["10.255.255.1"]]
        with receiver().up() as here:
            assert sent(f"http://hook.test:{here.port}/a?b=c").ok
        assert names.asked == ["hook.test"]
        ((path, headers, _),) = here.came
        assert (path, headers["host"]) == ("/a?b=c", f"hook.test:{here.port}")

    def test_the_certificate_must_be_the_names_not_the_addresses(
        self, names: "Names", private: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server, trusted = certificate(tmp_path, "hook.test")
        monkeypatch.setattr(webhooks, "trust", lambda: trusted)
        names.answers = [["127.0.0.1"]] * 2
        with receiver(tls=server).up() as here:
            assert sent(f"https://hook.test:{here.port}/").ok
            other = sent(f"https://other.test:{here.port}/")
        assert (other.ok, other.final) == (False, False)
        assert "certificate" in other.error.lower()


class TestAnswers:
    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    def test_a_redirect_is_reported_and_not_followed(self, status: int, private: None) -> None:
        elsewhere = receiver()
        away = {"location": f"{elsewhere.url}?token=hidden"}
        with elsewhere.up(), receiver(answer=status, headers=away).up() as here:
            tried = sent(here.url)
        assert (tried.ok, tried.final, tried.status) == (False, False, status)
        assert elsewhere.url in tried.error
        assert "hidden" not in tried.error
        assert elsewhere.came == []

    def test_an_answer_without_end_is_read_a_little_and_one_that_never_comes_is_given_up(
        self, private: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with receiver(answer=200, drip=True).up() as here:
            assert sent(here.url).ok
            here.drip = False
        monkeypatch.setattr(webhooks, "TRY_SECONDS", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            tried = bounded(f"http://127.0.0.1:{silent.getsockname()[1]}/")
        assert (tried.ok, tried.final) == (False, False)

    def test_a_day_of_tries_ends_and_each_is_later_than_the_one_before(self) -> None:
        pauses = [webhooks.pause(tries) for tries in range(len(webhooks.SCHEDULE) + 1)]
        assert pauses[-1] is None
        known = [pause for pause in pauses if pause is not None]
        assert known == sorted(known)
        assert 22 * 3600 < sum(known) < 24 * 3600
        assert webhooks.pause(0, after=120) == 120


@pytest.fixture
def private(settings: Any) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = True


@pytest.fixture
def here(db: None, private: None) -> World:
    return world()


class TestDeliveries:
    def test_one_that_is_down_and_then_up_gets_the_same_message_signed_anew(self, here: World) -> None:
        away = receiver()
        one = finished(here, away.url)
        assert webhooks.due() == [one.pk]
        deliver(one)
        with away.up():
            away.answer = 503
            deliver(one)
            away.answer = 204
            deliver(one)
        assert [try_.status for try_ in one.deliveries.all()] == [204, 503, None]
        assert (one.told, one.tries, webhooks.due()) == (Told.DELIVERED, 3, [])
        (first, second) = [(headers, body) for _, headers, body in away.came]
        assert first[1] == second[1]
        assert first[0]["webhook-id"] == second[0]["webhook-id"] == one.request_id
        message = verified(here, *second)
        assert message["type"] == "async.request.succeeded"
        assert message["data"]["request_id"] == one.request_id
        assert message["data"]["response"] == {"choices": []}
        with pytest.raises(WebhookVerificationError):
            verified(here, second[0], second[1].replace(b"choices", b"chances"))

    def test_it_waits_for_its_turn_and_two_at_once_are_one_try(self, here: World) -> None:
        one = finished(here, receiver().url)
        assert webhooks.deliver(one.pk)
        one.refresh_from_db()
        assert (one.told, one.tries) == (Told.WAITING, 1)
        assert one.next_try_at is not None
        assert one.next_try_at > timezone.now()
        assert not webhooks.deliver(one.pk), "its time has not come"
        assert one.deliveries.count() == 1

    @pytest.mark.parametrize("status", [400, 401, 404, 408, 429, 500, 503])
    def test_what_may_pass_is_tried_again(self, here: World, status: int) -> None:
        with receiver(answer=status, headers={"retry-after": "90"}).up() as at:
            one = finished(here, at.url)
            deliver(one)
        assert (one.told, one.deliveries.get().status) == (Told.WAITING, status)
        assert one.next_try_at is not None
        assert one.next_try_at > timezone.now() + timedelta(seconds=60)

    def test_gone_is_the_end_and_so_is_the_last_try(self, here: World) -> None:
        with receiver(answer=410).up() as at:
            one, two = finished(here, at.url), finished(here, at.url)
            deliver(one)
            assert (one.told, len(at.came)) == (Told.GIVEN_UP, 1)
            at.answer = 500
            for _ in range(len(webhooks.SCHEDULE) + 1):
                assert two.told == Told.WAITING
                deliver(two)
        assert (two.told, two.tries) == (Told.GIVEN_UP, len(webhooks.SCHEDULE) + 1)

    def test_the_result_stands_however_the_telling_ends_and_can_be_told_again(self, here: World) -> None:
        at = receiver(answer=410)
        one = finished(here, at.url)
        with at.up():
            deliver(one)
            at.answer = 200
            one.redeliver(by="Alice")
            deliver(one)
        assert one.told == Told.DELIVERED
        assert [(each.status, each.by) for each in one.deliveries.all()] == [(200, "Alice"), (410, "")]
        assert at.came[0][1]["webhook-id"] == at.came[1][1]["webhook-id"]
        assert one.opened(one.answer) == b'{"choices":[]}'

    def test_an_error_of_ours_is_a_try_that_failed(
        self, here: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(address, "resolved", lambda *_, **__: 1 / 0)
        one = finished(here, receiver().url)
        deliver(one)
        assert (one.told, one.tries) == (Told.WAITING, 1)
        assert "ZeroDivisionError" in caplog.text

    def test_what_has_expired_is_not_told(self, here: World) -> None:
        with receiver().up() as at:
            one = finished(here, at.url)
            AsyncRequest.objects.update(expires_at=timezone.now())
            deliver(one)
            assert at.came == []
        assert (one.told, one.deliveries.get().error) == (Told.GIVEN_UP, webhooks.EXPIRED.error)
        with pytest.raises(Refused, match="expired"):
            one.redeliver(by="Alice")

    def test_a_cancelled_one_is_told_of_too(self, here: World) -> None:
        with receiver().up() as at:
            one = queued(here, at.url)
            one.cancel(by="Alice")
            deliver(one)
        assert verified(here, *at.came[0][1:])["type"] == "async.request.cancelled"

    def test_where_private_addresses_are_not_allowed_nothing_is_sent(self, here: World, settings: Any) -> None:
        settings.WEBHOOK_ALLOW_PRIVATE = False
        with receiver().up() as at:
            one = finished(here, at.url)
            deliver(one)
            assert at.came == []
        assert one.told == Told.GIVEN_UP
        assert "private" in one.deliveries.get().error


@pytest.mark.django_db(transaction=True)
class TestCouriers:
    def test_a_receiver_that_hangs_holds_no_other_up(self, private: None, monkeypatch: pytest.MonkeyPatch) -> None:
        here, couriers = world(), Couriers()
        with socket.create_server(("127.0.0.1", 0)) as silent, receiver().up() as at:
            stuck, one = finished(here, f"http://127.0.0.1:{silent.getsockname()[1]}/"), finished(here, at.url)
            couriers.send(len(webhooks.due()))
            until(lambda: told(one) == Told.DELIVERED, what="the other one to be told")
            assert told(stuck) == Told.WAITING
            assert stuck.deliveries.count() == 0, "its try goes on"
            silent.accept()[0].close()
            until(lambda: couriers.idle, what="the try to end")
        assert stuck.deliveries.get().status is None

    def test_a_project_with_many_to_tell_holds_no_other_up(self, private: None) -> None:
        here = world()
        many = [finished(here, "http://127.0.0.1:9/") for _ in range(5)]
        theirs = finished(here, "http://127.0.0.1:9/")
        AsyncRequest.objects.filter(pk=theirs.pk).update(project=make.project("Beta"))
        first, second, *rest = webhooks.due()
        assert {first, second} == {many[0].pk, theirs.pk}
        assert rest == [one.pk for one in many[1:]]

    def test_they_come_again_after_an_error_of_ours(self, private: None, monkeypatch: pytest.MonkeyPatch) -> None:
        here, couriers = world(), Couriers()
        with receiver().up() as at:
            one = finished(here, at.url)
            with monkeypatch.context() as broken:
                broken.setattr(webhooks, "deliver", lambda _: 1 / 0)
                for _ in range(MOST + 1):
                    couriers.send(1)
                    until(lambda: couriers.idle, what="the courier to give up")
            couriers.send(1)
            until(lambda: couriers.idle, what="the courier to come back")
        assert told(one) == Told.DELIVERED


class TestSecrets:
    def test_during_a_rotation_either_secret_verifies_and_then_only_the_new_one(self, here: World) -> None:
        project = here.endpoint.project
        _, old = WebhookSecret.rotate(project, replacing=None, by=None)
        current = WebhookSecret.current(project)
        assert current is not None
        _, new = WebhookSecret.rotate(project, replacing=current.pk, by=None)
        with receiver().up() as at:
            deliver(finished(here, at.url))
            WebhookSecret.objects.filter(retires_at__isnull=False).update(retires_at=timezone.now())
            deliver(finished(here, at.url))
        (_, during, body), (_, after, later) = at.came
        assert Webhook(old).verify(body, during) == Webhook(new).verify(body, during)
        assert Webhook(new).verify(later, after)
        with pytest.raises(WebhookVerificationError):
            Webhook(old).verify(later, after)

    def test_a_form_sent_twice_rotates_once_and_no_more_than_two_are_valid(self, here: World) -> None:
        project = here.endpoint.project
        one, _ = WebhookSecret.rotate(project, replacing=None, by=None)
        with pytest.raises(Refused, match="already"):
            WebhookSecret.rotate(project, replacing=None, by=None)
        two, _ = WebhookSecret.rotate(project, replacing=one.pk, by=None)
        WebhookSecret.rotate(project, replacing=two.pk, by=None)
        assert len(WebhookSecret.valid(project, at=timezone.now())) == 2

    def test_it_is_not_to_be_read_in_the_database(self, here: World) -> None:
        row, value = WebhookSecret.rotate(here.endpoint.project, replacing=None, by=None)
        assert value.startswith("whsec_")
        assert value.encode() not in bytes(row.sealed)
        assert row.reveal() == value


# ── what these tests speak with ──────────────────────────────────────────────────────────────────
class Names:
    """A resolver whose answers a test chooses, one after the other; the last goes on."""

    def __init__(self) -> None:
        self.answers: list[list[str]] = [[]]
        self.asked: list[str] = []

    def answer(self, host: str, port: int) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in found]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Names that end in .test resolve to what the test says; addresses to themselves."""
    known, real = Names(), asyncio.base_events.BaseEventLoop.getaddrinfo

    async def getaddrinfo(self: Any, host: str, port: int, **more: Any) -> Any:
        return known.answer(host, port) if str(host).endswith(".test") else await real(self, host, port, **more)

    monkeypatch.setattr(asyncio.base_events.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return known


def sent(url: str) -> webhooks.Tried:
    return asyncio.run(webhooks.send(httpx.URL(url), b"{}", {"content-type": "application/json"}))


def bounded(url: str) -> webhooks.Tried:
    return asyncio.run(webhooks._bounded(httpx.URL(url), b"{}", {}))


def queued(here: World, url: str) -> AsyncRequest:
    same = {"project_id": here.endpoint.project_id, "endpoint_id": here.endpoint.pk, "key_id": here.key.pk}
    return AsyncRequest.submit(path="v1/chat/completions", body=b"{}", webhook=url, **same)[0]


def finished(here: World, url: str) -> AsyncRequest:
    one = queued(here, url)
    (run,) = queue.claim(here.endpoint.pk, capacity=100, busy=0)
    revision = here.endpoint.serving_revision_id or 0
    assert queue.finish(run, End(SUCCEEDED, 200, b'{"choices":[]}', revision_id=revision))
    one.refresh_from_db()
    return one


def deliver(one: AsyncRequest) -> None:
    """Its next try, now."""
    AsyncRequest.objects.filter(pk=one.pk, told=Told.WAITING).update(next_try_at=timezone.now())
    assert webhooks.deliver(one.pk)
    one.refresh_from_db()


def verified(here: World, headers: dict[str, str], body: bytes) -> dict[str, Any]:
    """The message, if its signature is the project's."""
    (secret,) = WebhookSecret.valid(here.endpoint.project, at=timezone.now())
    found: dict[str, Any] = Webhook(secret).verify(body, headers)
    assert found == orjson.loads(body)
    return found


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """For a server called `name`, and one that trusts nobody else."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both = folder / "server.pem"
    both.write_bytes(pem + secret)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(both)
    return server, ssl.create_default_context(cadata=pem.decode())


def test_the_setting_is_off_unless_somebody_turns_it_on() -> None:
    assert django_settings.WEBHOOK_ALLOW_PRIVATE is False


def told(one: AsyncRequest) -> str:
    one.refresh_from_db()
    return one.told

"""Log lines from the runtime into the database: all of them, once, in order, without secrets."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from django.db import connections

from endpoints.models import Endpoint, Instance, Secret
from endpoints.runtimes.base import LogLine as Written
from endpoints.runtimes.base import Sampled, Unavailable
from endpoints.spec import EnvironmentSpec
from monitoring import ingest, redact, samples
from monitoring.models import LogLine, Sample
from tests import make
from tests.monitoring.measured import AT, TellingRuntime

pytestmark = pytest.mark.django_db


@pytest.fixture
def instance() -> Instance:
    return make.endpoint(ready=1).instances.get()


@pytest.fixture
def runtime() -> TellingRuntime:
    return TellingRuntime()


def collect(of: Instance, runtime: TellingRuntime, *, later: int = 0) -> int:
    return ingest.collect(of.endpoint.region, runtime, at=AT + timedelta(seconds=later))


def stored(of: Instance) -> list[tuple[int, str, bool]]:
    return list(of.log_lines.order_by("sequence").values_list("sequence", "text", "gap"))


def test_lines_are_numbered_without_gaps_and_taken_once(instance: Instance, runtime: TellingRuntime) -> None:
    runtime.write(instance.name, "one", "two")
    assert collect(instance, runtime) == 2
    assert collect(instance, runtime) == 0
    runtime.write(instance.name, "three")
    assert collect(instance, runtime) == 1
    assert stored(instance) == [(1, "one", False), (2, "two", False), (3, "three", False)]


def test_lost_lines_are_marked_and_the_numbers_go_on(instance: Instance, runtime: TellingRuntime) -> None:
    runtime.write(instance.name, "one")
    collect(instance, runtime)
    runtime.write(instance.name, "nine", offset=9)
    collect(instance, runtime)
    assert stored(instance) == [(1, "one", False), (2, "nine", True)]


def test_a_log_whose_beginning_is_gone_says_so(instance: Instance, runtime: TellingRuntime) -> None:
    runtime.write(instance.name, "late", offset=500)
    collect(instance, runtime)
    assert stored(instance) == [(1, "late", True)]


def test_a_burst_is_taken_in_several_calls(instance: Instance, runtime: TellingRuntime) -> None:
    runtime.write(instance.name, *["x"] * 2300)
    assert collect(instance, runtime) == 2300
    assert [after for _, after in runtime.asked] == [0, 1000, 2000]


def test_the_log_of_an_ended_instance_is_drained_then_forgotten_once(
    instance: Instance, runtime: TellingRuntime
) -> None:
    Instance.objects.filter(pk=instance.pk).update(state="failed", ended_at=AT)
    runtime.write(instance.name, "last words")
    assert collect(instance, runtime, later=1) == 1
    assert runtime.forgotten == []
    collect(instance, runtime, later=10)
    collect(instance, runtime, later=11)
    assert runtime.forgotten == [instance.name]
    assert stored(instance) == [(1, "last words", False)]


def test_a_running_instance_is_never_forgotten(instance: Instance, runtime: TellingRuntime) -> None:
    collect(instance, runtime, later=3600)
    assert runtime.forgotten == []


def test_one_instance_that_cannot_be_asked_does_not_stop_the_others(instance: Instance) -> None:
    second = make.instance(instance.endpoint)

    class HalfBlindRuntime(TellingRuntime):
        def logs(self, name: str, after: int, limit: int) -> list[Written]:
            if name == instance.name:
                raise Unavailable("its folder is being moved")
            return super().logs(name, after, limit)

    runtime = HalfBlindRuntime()
    runtime.write(second.name, "seen")
    assert collect(instance, runtime) == 1


@pytest.mark.django_db(transaction=True)
def test_a_second_collector_stands_back(instance: Instance, runtime: TellingRuntime) -> None:
    region = instance.endpoint.region
    other = connections["default"].copy()
    runtime.write(instance.name, "one")
    try:
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_lock(%s, %s)", [ingest.LOCK_SPACE, region.pk])
            assert collect(instance, runtime) == 0
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [ingest.LOCK_SPACE, region.pk])
        assert collect(instance, runtime) == 1
    finally:
        other.close()


VALUE = "s3cr3t-value-of-the-token"


def with_secret() -> Instance:
    make.region()
    project = make.project()
    secret = Secret(project=project, name="hub-token")
    secret.put(VALUE)
    secret.save()
    wish = make.spec(environment=EnvironmentSpec(secrets={"HF_TOKEN": "hub-token"}))
    make.instance_type()
    endpoint = Endpoint.launch(project, wish, by=make.user("alice"))
    return make.instance(endpoint)


@pytest.mark.parametrize(
    "line",
    [
        f"token={VALUE}",
        base64.b64encode(VALUE.encode()).decode(),
        "Basic " + base64.b64encode(f"user:{VALUE}".encode()).decode(),
        "Basic " + base64.b64encode(f"ab:{VALUE}:and more".encode()).decode(),
    ],
)
def test_a_secret_never_reaches_the_database_in_plain_or_base64(line: str, runtime: TellingRuntime) -> None:
    instance = with_secret()
    runtime.write(instance.name, line)
    collect(instance, runtime)
    ((_, text, _),) = stored(instance)
    assert redact.MASK in text
    assert VALUE not in text
    assert not any(line[start : start + 16] in text for start in range(len(line) - 15))


def test_keys_are_known_by_their_shape_whoever_printed_them() -> None:
    said = redact.clean("used tir_0a1b2c3d_" + "x" * 43 + " and hf_" + "Y" * 34)
    assert said == f"used {redact.MASK} and {redact.MASK}"


def test_a_cut_cannot_leave_half_a_secret() -> None:
    text = "x" * (redact.LONGEST_LINE - 5) + VALUE + "y" * 100
    cut = redact.clean(text, [VALUE])
    assert VALUE[:5] not in cut
    assert "more characters cut" in cut


def test_what_postgres_cannot_hold_is_replaced_not_raised(instance: Instance, runtime: TellingRuntime) -> None:
    runtime.write(instance.name, "nul \0 and \ud800 surrogate")
    assert collect(instance, runtime) == 1


def test_samples_fall_into_slots_and_unmeasured_stays_unmeasured(
    instance: Instance, runtime: TellingRuntime
) -> None:
    region = instance.endpoint.region
    runtime.used = {instance.name: Sampled(cpu_millis=700, memory_bytes=5), "not-ours": Sampled(cpu_millis=1)}
    assert samples.sample(region, runtime, at=AT) == 1
    runtime.used = {instance.name: Sampled(cpu_millis=None, memory_bytes=9)}
    samples.sample(region, runtime, at=AT + timedelta(seconds=5))
    row = Sample.objects.get()
    assert row.at.second % samples.SLOT_SECONDS == 0
    assert (row.cpu_millis, row.memory_bytes, row.gpu_percent) == (700, 9, None)
    samples.sample(region, runtime, at=AT + timedelta(seconds=15))
    assert Sample.objects.latest("at").cpu_millis is None


def test_lines_can_be_stored_twice_only_by_breaking_the_constraint(instance: Instance) -> None:
    row = {"instance": instance, "endpoint": instance.endpoint, "sequence": 1, "offset": 1, "at": AT}
    LogLine.objects.create(**row)
    LogLine.objects.bulk_create([LogLine(**row)], ignore_conflicts=True)
    assert LogLine.objects.count() == 1

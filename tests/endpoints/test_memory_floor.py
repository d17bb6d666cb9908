"""What ran out of memory once is never said to fit again; how far that reaches, and what stands against it."""

from datetime import date
from typing import Any

import pytest

from endpoints.memory import Device, Estimate, Floor, Layers, ModelShape, Verdict, estimate, stated, uncounted

MIB, GIB = 1 << 20, 1 << 30
SHAPE = ModelShape(
    weight_bytes=2 * GIB, attention=(Layers(32, 8, 128, 128),), heads=32, hidden=4096, trained_context=8192
)
DAY = date(2026, 11, 28)
TOLD = "An instance of this model ran out of memory at 4 GiB on 28 Nov (2,048 tokens × 1)."


def need(gib: float = 4, length: int = 2048, **more: Any) -> Estimate:
    asked: dict[str, Any] = {"length": length, "concurrency": 1, "kv_type": "f16", "engine": "pytorch"} | more
    return estimate(SHAPE, device=Device("cpu", int(gib * GIB)), **asked)


def firm(**asked: Any) -> int:
    found = need(**asked).firm_bytes
    assert found is not None
    return found


@pytest.fixture
def floor() -> Floor:
    """4 GiB were assumed to be enough, and were not."""
    assert need().verdict is Verdict.FITS
    return Floor(4 * GIB, 2048, 1, DAY, above_bytes=4 * GIB - firm())


def test_the_same_does_not_fit_again_and_says_why(floor: Floor) -> None:
    again = need(floor=floor)
    assert again.verdict is Verdict.DOES_NOT_FIT
    assert (again.ran_out, again.measured) == (TOLD, False)
    assert again.low_bytes == again.firm_bytes == 4 * GIB, "at the least"
    assert need(gib=3, floor=floor).verdict is Verdict.DOES_NOT_FIT
    assert need(gib=8, floor=floor).verdict is Verdict.FITS


@pytest.mark.parametrize("length", [128, 1024, 2047, 4096, 8192])
def test_other_lengths_differ_by_their_cache_and_what_is_no_proof_is_not_called_fitting(
    floor: Floor, length: int
) -> None:
    found = need(length=length, floor=floor)
    assert found.firm_bytes == firm(length=length) + 4 * GIB - firm()
    assert found.verdict is (Verdict.TIGHT if length < 2048 else Verdict.DOES_NOT_FIT)
    assert found.largest_length == found.largest_concurrency == 0, "what only may fit is not advised"


def test_what_was_measured_counts_once_it_is_more(floor: Floor) -> None:
    assert floor.above_bytes is not None
    less, more = (need(gib=8, floor=floor, correction=floor.above_bytes + by) for by in (-MIB, MIB))
    assert (less.firm_bytes, less.measured, less.ran_out) == (4 * GIB, False, TOLD)
    assert (more.firm_bytes, more.measured, more.ran_out) == (4 * GIB + MIB, True, "")


def test_a_persons_own_figure_stands_with_a_warning(floor: Floor) -> None:
    here, larger = Device("cpu", 4 * GIB), Device("cpu", 8 * GIB)
    assert (stated(2 * GIB, here).verdict, stated(2 * GIB, here).ran_out) == (Verdict.FITS, "")
    assert (stated(2 * GIB, here, floor).verdict, stated(2 * GIB, here, floor).ran_out) == (Verdict.TIGHT, TOLD)
    assert stated(2 * GIB, larger, floor).verdict is Verdict.FITS
    assert stated(5 * GIB, here, floor).verdict is Verdict.DOES_NOT_FIT


@pytest.mark.parametrize(
    ("gib", "length", "verdict", "told"),
    [
        (4, 2048, Verdict.DOES_NOT_FIT, TOLD),
        (4, 4096, Verdict.DOES_NOT_FIT, TOLD),
        (8, 2048, Verdict.UNKNOWN, TOLD),
        (4, 1024, Verdict.UNKNOWN, ""),
    ],
)
def test_where_nothing_can_be_counted_settings_no_smaller_are_refused_with_no_more_memory(
    gib: int, length: int, verdict: Verdict, told: str
) -> None:
    found = uncounted(length, 1, Device("cpu", gib * GIB), Floor(4 * GIB, 2048, 1, DAY))
    assert (found.verdict, found.ran_out) == (verdict, told)

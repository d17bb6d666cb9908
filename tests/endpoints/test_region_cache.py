"""A region's cache of models on its page: as the last fetch saw it, when that was, and nothing that nobody saw."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from endpoints import regions
from endpoints.cached import Cached
from endpoints.capacity import Capacity
from endpoints.models import Region
from endpoints.regions import replace_runtime
from endpoints.runtimes.base import Unavailable
from tests import make

pytestmark = pytest.mark.django_db
GIB = 1 << 30
THEN = timezone.now() - timedelta(minutes=5)


class Place:
    """A runtime whose instances keep models in a claim."""

    def __init__(self) -> None:
        self.seen: Cached | None = None
        self.away = False

    def capacity(self) -> Capacity:
        return Capacity(8000, 6000, GIB, GIB, 0, 0, "")

    def cached(self) -> Cached | None:
        if self.away:
            raise Unavailable("the cluster is away")
        return self.seen


@pytest.fixture
def place() -> Iterator[Place]:
    make.region("far", runtime="kubernetes", config={"cache": "models"})
    place = Place()
    replace_runtime("far", place)  # type: ignore[arg-type]
    yield place
    replace_runtime("far", None)


def page() -> str:
    """What staff reads once a worker has asked the region."""
    regions.measure(Region.objects.get(slug="far"), at=timezone.now())
    browser = Client()
    browser.force_login(make.user("staff", is_staff=True))
    return " ".join(browser.get("/regions/far/").content.decode().split())


def seen(**changes: int) -> Cached:
    numbers = {"total": 20 * GIB, "free": 3 * GIB, "models": 5, "size": 12 * GIB, "removed": 0, "removed_size": 0}
    return Cached("models", THEN.isoformat(), **{**numbers, **changes})


def test_nothing_is_claimed_before_anybody_looked(place: Place) -> None:
    assert "Not measured yet: the next instance that starts here tells how full models is" in page()


def test_what_the_last_fetch_saw_stands_there_with_its_time(place: Place) -> None:
    place.seen = seen()
    said = page()
    assert "5 models, 12 GiB; 3 GiB of 20 GiB are free" in said
    assert "as the last fetch saw it" in said
    assert f'datetime="{THEN.isoformat()}"' in said
    assert "to make room" not in said


def test_what_went_to_make_room_is_told_and_stays_when_who_told_it_is_gone(place: Place) -> None:
    place.seen = seen(removed=2, removed_size=4 * GIB)
    page()
    place.seen = None
    assert "That fetch removed 2 models that were not in use, 4 GiB, to make room" in page()
    place.away = True
    assert "5 models" in page()


def test_another_claim_was_not_measured(place: Place) -> None:
    place.seen = seen()
    page()
    place.seen = None
    Region.objects.filter(slug="far").update(config={"cache": "other"})
    assert "how full other is" in page()
    Region.objects.filter(slug="far").update(config={})
    assert "cache" not in page().partition('id="region-state"')[2].partition("</dl>")[0]

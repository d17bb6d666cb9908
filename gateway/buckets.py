"""What limits count, and how: buckets of the last minute's requests and tokens, and of requests at once.

A sliding window, because a token bucket lets twice its size pass within a minute and a fixed minute does so
at its edge. It is kept in cells of a second, and a cell leaves as a whole once its last moment is a minute
old: no 60 seconds ever see more than the limit, and what a burst took comes back 60 to 61 seconds later. What lies
more than a minute ahead was counted before the clock was set back, and leaves too.

`Buckets` is the count of one process, in memory. `gateway.shared` keeps the same count for all gateways, as a
script in Valkey; both take an `Ask` and give an `Answer`, and a test holds them to the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.routes import Quotas

WINDOW_SECONDS = 60
SPAN = WINDOW_SECONDS + 1  # cells that count, the running second's included
SPARE = 16  # a gateway takes at most this part of what is left in advance, so that none waits for another long
REQUESTS, TOKENS, SLOTS = range(3)
LIMITLESS = -1

Three = tuple[int, int, int]  # of requests, tokens and slots


@dataclass(frozen=True, slots=True)
class Bucket:
    """What a gateway tells of one bucket and wants of it.

    `held`: slots that it holds already, replacing what it said before. `holding_ms`: so long it may still keep
    units that it has in advance. `want`: units to have in advance. `owed`: (second, requests, tokens) to add to
    what was counted in that second; negative numbers give back.
    """

    name: str
    limits: Three
    held: int = 0
    holding_ms: int = 0
    want: Three = (0, 0, 0)
    owed: Sequence[Three] = ()


@dataclass(frozen=True, slots=True)
class Item:
    """One request: it takes one request, these tokens and one slot of each of these buckets, or of none."""

    tokens: int
    buckets: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Ask:
    """`known` is the marker of the count that the gateway spoke to last, "" at first; `proposed` marks a count
    that is empty. Another count than the known one does nothing and answers with its marker alone."""

    gateway: str
    known: str
    proposed: str
    lease_ms: int
    hold_ms: int
    buckets: Sequence[Bucket] = ()
    items: Sequence[Item] = ()


@dataclass(frozen=True, slots=True)
class Short:
    """Why an item took nothing: which bucket lacks what, how much of it is used, in how many milliseconds there
    may be room, and in how many others have given back what they hold in advance (0: they hold nothing)."""

    bucket: int
    what: int
    used: int
    wait_ms: int
    held_ms: int


@dataclass(frozen=True, slots=True)
class State:
    """A bucket after the ask: what is used, what was given in advance (counted in `cell`), and the last second
    in which requests and tokens were counted."""

    used: Three
    extra: Three
    cell: int
    last: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Answer:
    """`now` in milliseconds since 1970 by the count's own clock; `shorts` has None for an item that took."""

    marker: str
    now: int
    shorts: Sequence[Short | None] = ()
    states: Sequence[State] = ()

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Answer:
        shorts = [Short(*short) if short else None for short in found.get("shorts") or ()]
        states = [
            State(tuple(used), tuple(extra), cell, tuple(last))
            for used, extra, cell, last in found.get("states") or ()
        ]
        return cls(found["marker"], int(found["now"]), shorts, states)


def limits_of(quotas: Quotas) -> Three:
    three = (quotas.requests_per_minute, quotas.tokens_per_minute, quotas.concurrent_requests)
    requests, tokens, slots = (LIMITLESS if limit is None else limit for limit in three)
    return requests, tokens, slots


@dataclass(slots=True)
class Holder:
    """The slots of one gateway, its own until `lease` and, as far as held in advance, until `hold`."""

    slots: int
    lease: int
    hold: int


@dataclass(slots=True)
class Count:
    """One bucket: cells by second, for requests and for tokens, and who holds slots."""

    cells: tuple[dict[int, int], dict[int, int]] = field(default_factory=lambda: ({}, {}))
    holders: dict[str, Holder] = field(default_factory=dict)
    newest: int = 0  # cell

    def add(self, what: int, cell: int, number: int) -> None:
        cells = self.cells[what]
        cells[cell] = max(0, cells.get(cell, 0) + number)
        self.newest = max(self.newest, cell)
        if len(cells) > 2 * SPAN:
            _drop(cells, self.newest - SPAN - 2)  # the newest may be a moment ahead

    def sweep(self, now: int, lease_ms: int) -> None:
        second = now // 1000
        self.newest = min(self.newest, second + SPAN)
        for cells in self.cells:
            for cell in [cell for cell in cells if not counts_at(second, cell)]:
                del cells[cell]
        lives = range(now + 1, now + 2 * lease_ms + 1)
        for gateway in [name for name, holder in self.holders.items() if holder.lease not in lives]:
            del self.holders[gateway]

    def used(self, what: int) -> int:
        if what == SLOTS:
            return sum(holder.slots for holder in self.holders.values())
        return sum(self.cells[what].values())

    def last(self, what: int) -> int:
        return max((cell for cell, number in self.cells[what].items() if number), default=0)

    def wait_ms(self, what: int, over: int, now: int) -> int:
        """Until `over` units more are free, as far as time alone frees them."""
        if what == SLOTS:
            return 1000
        for cell in sorted(self.cells[what]):
            over -= self.cells[what][cell]
            if over <= 0:
                return (cell + SPAN) * 1000 - now
        return SPAN * 1000


def counts_at(second: int, cell: int) -> bool:
    """Whether what was counted in that cell counts in this second."""
    return second - SPAN < cell <= second + SPAN


def _drop(cells: dict[int, int], oldest: int) -> None:
    """What is as old as that counts no more."""
    for cell in [cell for cell in cells if cell <= oldest]:
        del cells[cell]


class Buckets:
    """The count of one process."""

    def __init__(self) -> None:
        self.marker = ""
        self.counts: dict[str, Count] = {}

    def exchange(self, ask: Ask, now: int) -> Answer:
        """Take note of what is told, then let each item take of all its buckets or of none, then give in
        advance. `now` in milliseconds since 1970."""
        self.marker = self.marker or ask.proposed
        if ask.known and ask.known != self.marker:
            return Answer(self.marker, now)
        counts = [self._told(told, ask, now) for told in ask.buckets]
        shorts = [self._take(item, ask, counts, now) for item in ask.items]
        states = [_give(told, ask, count, now) for told, count in zip(ask.buckets, counts, strict=True)]
        return Answer(self.marker, now, shorts, states)

    def note(self, name: str, cell: int, requests: int, tokens: int) -> None:
        """Count what was taken elsewhere."""
        count = self.counts.get(name)
        if count is None:
            count = self.counts[name] = Count()
        if requests:
            count.add(REQUESTS, cell, requests)
        if tokens:
            count.add(TOKENS, cell, tokens)

    def sweep(self, now: int) -> None:
        """Let go of buckets that are over, at no more than a look each."""
        oldest = now // 1000 - SPAN
        for name, count in list(self.counts.items()):
            count.newest = min(count.newest, oldest + 2 * SPAN)
            if count.newest <= oldest and all(holder.lease <= now for holder in count.holders.values()):
                del self.counts[name]

    def _told(self, told: Bucket, ask: Ask, now: int) -> Count:
        count = self.counts.setdefault(told.name, Count())
        count.sweep(now, ask.lease_ms)
        count.holders[ask.gateway] = Holder(told.held, now + ask.lease_ms, 0)
        for cell, requests, tokens in told.owed:
            if counts_at(now // 1000, cell):
                self.note(told.name, cell, requests, tokens)
        return count

    def _take(self, item: Item, ask: Ask, counts: Sequence[Count], now: int) -> Short | None:
        needs = (1, item.tokens, 1)
        worst: Short | None = None
        for at in item.buckets:
            for what, (limit, need) in enumerate(zip(ask.buckets[at].limits, needs, strict=True)):
                over = counts[at].used(what) + need - limit
                if limit != LIMITLESS and need and over > 0:
                    wait = counts[at].wait_ms(what, over, now)
                    if worst is None or wait > worst.wait_ms:
                        held = _held_ms(counts[at], ask.gateway, now)
                        worst = Short(at, what, counts[at].used(what), wait, held)
        if worst is None:
            for at in item.buckets:
                _add(counts[at], ask, ask.buckets[at].limits, needs, now // 1000)
        return worst


def _add(count: Count, ask: Ask, limits: Three, numbers: Three, cell: int) -> None:
    for what in (REQUESTS, TOKENS):
        if limits[what] != LIMITLESS and numbers[what]:
            count.add(what, cell, numbers[what])
    if limits[SLOTS] != LIMITLESS:
        count.holders[ask.gateway].slots += numbers[SLOTS]


def _held_ms(count: Count, gateway: str, now: int) -> int:
    return max((one.hold - now for name, one in count.holders.items() if name != gateway and one.hold > now),
               default=0)  # fmt: skip


def _give(told: Bucket, ask: Ask, count: Count, now: int) -> State:
    """Units in advance, counted where the hold on them ends: they may be spent until then."""
    cell = (now + ask.hold_ms) // 1000
    requests, tokens, slots = (
        0 if limit == LIMITLESS else max(0, min(want, (limit - count.used(what)) // SPARE))
        for what, (limit, want) in enumerate(zip(told.limits, told.want, strict=True))
    )
    extra = (requests, tokens, slots)
    _add(count, ask, told.limits, extra, cell)
    mine = count.holders[ask.gateway]
    if holding := ask.hold_ms if any(extra) else told.holding_ms:
        mine.hold = now + holding
    elif not mine.slots:
        del count.holders[ask.gateway]
    used = (count.used(REQUESTS), count.used(TOKENS), count.used(SLOTS))
    return State(used, extra, cell, (count.last(REQUESTS), count.last(TOKENS)))

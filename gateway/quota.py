"""Limits of callers and of endpoints: requests a minute, tokens a minute, requests at once.

All limits of a request are checked before any is taken from, in one atomic step over all gateways (see
`gateway.buckets` for what counts). Requests that wait for that step share it. A busy caller far from its limit
gets units in advance, so that its requests wait for nothing; they live for `HOLD_SECONDS`, and new ones replace
them while it goes on. Nearness to the limit makes them none, and whoever is refused while others hold some asks
once more when they are back: the limit lets exactly so many pass, never one more, and not one less while there is
demand.

A slot is a lease of this gateway, renewed while its requests run; those of a gateway that died come back with
`LEASE_SECONDS`. Tokens are reserved as what a request may come to, and settled as what it came to.

Where the shared count doesn't answer within 0.2 s, this gateway counts alone, each limit whole
and beginning with what it let pass itself in the last minute: never open, never shut. It says so once in the log
and in `/healthz`, asks every second, and tells the shared count what it let pass meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from time import monotonic, time
from typing import Any

from gateway.buckets import REQUESTS, TOKENS, Answer, Ask, Bucket, Buckets, Item, Short, State
from gateway.contract import Away, Counts
from gateway.errors import Headers, Refusal
from gateway.routes import Key, Quotas, Route
from gateway.share import SHUT_SECONDS, Share, headers_of, lines_of, refusal, too_large

log = logging.getLogger("gateway")

HOLD_SECONDS = 0.06
AHEAD_SECONDS = 0.02  # before a hold ends, the next is asked for
HOLD_MARGIN_SECONDS = 0.04  # for giving back
WAIT_SECONDS = 0.25  # for a judgement, in all
EXCHANGE_PART = 0.8  # of that, for one answer of the shared count
LEASE_SECONDS = 15.0
LATER_SECONDS = 0.02  # until what ended is told, where nobody needs it at once
EASY_SECONDS = HOLD_SECONDS  # the same far from every limit: others can't have what is held for so long either
MOST_ITEMS, MOST_SHARES = 128, 64  # of one ask


class Taken:
    """What a request took of its limits."""

    def __init__(self, limiter: Limiter, shares: tuple[Share, ...], cells: tuple[int, ...], tokens: int) -> None:
        self._limiter, self._shares, self.cells, self._tokens = limiter, shares, cells, tokens
        self._open = True

    @property
    def headers(self) -> Headers:
        return headers_of(self._shares)

    def lines(self) -> bytes:
        return lines_of(self._shares)

    def settle(self, tokens: int) -> None:
        """Give the slots back and count the tokens that it came to. Never raises; the first call counts."""
        if self._open:
            self._open = False
            self._limiter.settled(self._shares, self.cells, tokens - self._tokens)

    def __del__(self) -> None:
        if self._open:
            log.warning("A request was let go of without being settled; its place is given back")
            self.settle(self._tokens)


@dataclass(eq=False, slots=True)
class Waiting:
    """A request that waits for its judgement, until `ends`; `refused` is the last one, if there is a better to
    come."""

    shares: tuple[Share, ...]
    tokens: int
    ends: float
    judged: asyncio.Future[Taken | Refusal]
    refused: Refusal | None = None


class Limiter:
    """The limits as one gateway enforces them. `look` is to be called about once a second."""

    def __init__(
        self,
        counts: Counts,
        *,
        lease: float = LEASE_SECONDS,
        patience: float = WAIT_SECONDS,
        clock: Callable[[], float] = monotonic,
        wall: Callable[[], float] = time,
    ) -> None:
        self.counts = counts
        self.name = secrets.token_hex(6)
        self.lease, self.patience, self.clock, self.wall = lease, patience, clock, wall
        self.problem = ""  # why this gateway counts alone; "" while it does not
        self._local = Buckets()  # what this gateway let pass
        self.shares: dict[str | int, Share] = {}
        self.waiting: list[Waiting] = []
        self.dirty: dict[Share, None] = {}  # those with something to tell
        self._urgent = False  # now, not by and by
        self._due = inf  # when what is dirty is to be told at the latest
        self.holding: dict[Share, None] = {}  # those with something in advance
        self._marker = ""
        self._ahead = 0.0  # seconds from our clock to that of the shared count
        self._running: asyncio.Task[None] | None = None
        self._later: asyncio.TimerHandle | None = None

    # ── judging ──────────────────────────────────────────────────────────────────────────────────
    def take_now(self, key: Key, route: Route, tokens: int) -> Taken | Refusal | None:
        """The judgement, or None where the shared count has to be asked."""
        at = self.clock()
        shares = self._shares(key, route, at)
        for share in shares:
            if 0 <= share.limits[1] < tokens:
                return too_large(share, tokens)
            if at < share.shut_until:
                return share.shut
        if self.problem:
            return self._alone(shares, tokens)
        for share in shares:
            if not share.has(tokens, at):
                return None
        for share in shares:
            share.spend(tokens)
            if at > share.until - AHEAD_SECONDS and not share.renews:
                share.renews = True
                self._tell(share)
        return self._taken(shares, cells_of(shares), tokens)

    async def take(self, key: Key, route: Route, tokens: int) -> Taken | Refusal:
        """The judgement, within `WAIT_SECONDS`."""
        found = self.take_now(key, route, tokens)
        if found is not None:
            return found
        shares = self._shares(key, route, self.clock())
        judged: asyncio.Future[Taken | Refusal] = asyncio.get_running_loop().create_future()
        one = Waiting(shares, tokens, self.clock() + self.patience, judged)
        self.waiting.append(one)
        self._pump()
        try:
            async with asyncio.timeout(self.patience):
                return await judged
        except TimeoutError:
            if judged.done() and not judged.cancelled():
                return judged.result()
            return one.refused or self._alone(shares, tokens)
        except asyncio.CancelledError:
            if judged.done() and not judged.cancelled():
                self._undo(one, judged.result())
            raise

    def settled(self, shares: tuple[Share, ...], cells: tuple[int, ...], over: int) -> None:
        """A request ended that used so many tokens more than it had reserved."""
        at = self.clock()
        for number, share in enumerate(shares):
            told = share.release(at)
            if told and share.tight():
                self._tell(share)
            elif told:
                self._tell_later(share)
            if over and share.limits[1] >= 0:
                self._correct(share, cells[number] if over < 0 else self._now_ms() // 1000, 0, over)

    def _shares(self, key: Key, route: Route, at: float) -> tuple[Share, ...]:
        found = []
        known = self.shares.get(key.holder)
        if known is not None and known.quotas is key.quotas:
            known.seen = at
            found.append(known)
        elif key.quotas is not None:
            whose = "This API key" if key.holder.startswith("key:") else "This caller"
            found.append(self._share(key.holder, key.holder, whose, key.quotas, at))
        quotas = route.admission.quotas
        if quotas is not None:
            number = route.endpoint_id
            found.append(self._share(number, f"endpoint:{number}", f"The endpoint {route.name}", quotas, at))
        return tuple(found)

    def _share(self, at_key: str | int, name: str, whose: str, quotas: Quotas, at: float) -> Share:
        share = self.shares.get(at_key)
        if share is None:
            share = self.shares[at_key] = Share(name, whose, quotas, at)
        elif share.quotas is not quotas and share.quotas != quotas:
            share.change(quotas)
            self._tell_later(share)
        share.seen = at
        return share

    def _taken(self, shares: tuple[Share, ...], cells: tuple[int, ...], tokens: int) -> Taken:
        for number, share in enumerate(shares):
            share.note(cells[number], 1, tokens)
        return Taken(self, shares, cells, tokens)

    def _alone(self, shares: tuple[Share, ...], tokens: int) -> Taken | Refusal:
        """The judgement of this gateway's own count."""
        now = self._now_ms()
        told = [Bucket(share.name, share.limits, share.held()) for share in shares]
        items = (Item(tokens, tuple(range(len(told)))),)
        answer = self.local.exchange(Ask(self.name, "", "local", int(self.lease * 1000), 0, told, items), now)
        for share, state in zip(shares, answer.states, strict=True):
            share.know(state, 0.0)
        short = answer.shorts[0]
        if short is not None:
            return refusal(shares[short.bucket], short, answer.states[short.bucket], tokens, now)
        for share in shares:
            share.let_in(tokens)
            share.owe(now // 1000, 1, tokens)
        return Taken(self, shares, (now // 1000,) * len(shares), tokens)

    # ── telling and asking the others ────────────────────────────────────────────────────────────
    def _tell(self, share: Share) -> None:
        self.dirty[share] = None
        self._tell_all()

    def _tell_all(self) -> None:
        self._urgent = True
        self._pump()

    def _tell_later(self, share: Share) -> None:
        self.dirty[share] = None
        self._due = min(self._due, self.clock() + (EASY_SECONDS if share.far() else LATER_SECONDS))
        self._set_timer()

    def _set_timer(self) -> None:
        if self._later is None and not self.problem:
            try:
                self._later = asyncio.get_running_loop().call_later(LATER_SECONDS, self._tell_now)
            except RuntimeError:
                log.debug("Nobody is told: the loop has ended")

    def _tell_now(self) -> None:
        """Among the rest what was had in advance and is over."""
        self._later, at = None, self.clock()
        for share in list(self.holding):
            if at >= share.until:
                del self.holding[share]
                if share.keeps():
                    self.dirty[share] = None
                    self._due = at
        if self.dirty and at >= self._due:
            self._tell_all()
        if self.holding or self.dirty:
            self._set_timer()

    @property
    def local(self) -> Buckets:
        """What this gateway let pass itself, all of it."""
        for share in self.shares.values():
            for cell, requests, tokens in share.noted.take():
                self._local.note(share.name, cell, requests, tokens)
        return self._local

    def _correct(self, share: Share, cell: int, requests: int, tokens: int) -> None:
        """Count more or less than was taken."""
        share.note(cell, requests, tokens)
        share.owe(cell, requests, tokens)
        self._tell_later(share)

    def _pump(self) -> None:
        """See to it that whoever waits is judged and what is to be told is told."""
        if self._running is None and not self.problem:
            try:
                self._running = asyncio.get_running_loop().create_task(self._run())
            except RuntimeError:
                log.debug("Nobody is told: the loop has ended")

    async def _run(self) -> None:
        try:
            while (self.waiting or self._urgent) and not self.problem:
                await self._exchange()
        finally:
            self._running = None

    async def _exchange(self) -> None:
        waiting = [one for one in self.waiting if not one.judged.done()]
        items, self.waiting = waiting[:MOST_ITEMS], waiting[MOST_ITEMS:]
        asking = dict.fromkeys(share for one in items for share in one.shares)
        shares = [*asking, *(share for share in self.dirty if share not in asking)][: len(asking) + MOST_SHARES]
        for share in shares:
            self.dirty.pop(share, None)
        self._urgent, self._due = bool(self.dirty), inf
        at = self.clock()
        told = [share.tell(at, wants=share in asking, hold=HOLD_SECONDS) for share in shares]
        numbers = {share: number for number, share in enumerate(shares)}
        asked = [Item(one.tokens, tuple(numbers[share] for share in one.shares)) for one in items]
        try:
            answer = await self._ask(told, asked)
        except Away as away:
            for share, bucket in zip(shares, told, strict=True):
                share.lost(bucket)
            self.waiting[:0] = items
            self._go_alone(str(away))
            return
        if self._begun_anew(answer):
            self.waiting[:0] = items
            return
        self._learn(shares, answer, at)
        for one, short in zip(items, answer.shorts, strict=True):
            self._judge(one, short, shares, answer)
        self._spend_on_waiting()

    async def _ask(self, told: Sequence[Bucket] = (), items: Sequence[Item] = ()) -> Answer:
        """Raises Away, also where the answer takes too long."""
        hold = int((HOLD_SECONDS + HOLD_MARGIN_SECONDS) * 1000)
        ask = Ask(self.name, self._marker, secrets.token_hex(6), int(self.lease * 1000), hold, told, items)
        seconds = self.patience * EXCHANGE_PART
        try:
            async with asyncio.timeout(seconds):
                answer = await self.counts.exchange(ask)
        except TimeoutError:
            raise Away(f"Valkey: no answer within {seconds:g} s") from None
        self._ahead = answer.now / 1000 - self.wall()
        return answer

    def _begun_anew(self, answer: Answer) -> bool:
        """Whether the shared count is another than before, which knows nothing of the last minute: then it is
        told what this gateway let pass, before anything is asked of it."""
        known, self._marker = self._marker, answer.marker
        if known in ("", answer.marker):
            return False
        for share in self.shares.values():
            share.void()
            share.owed.take()
            count = self.local.counts.get(share.name)
            for what, cells in enumerate(count.cells if count else ()):
                for cell, number in cells.items():
                    share.owe(cell, number if what == REQUESTS else 0, number if what == TOKENS else 0)
            self.dirty[share] = None
        self._urgent = True
        return True

    def _learn(self, shares: Sequence[Share], answer: Answer, at: float) -> None:
        for share, state in zip(shares, answer.states, strict=True):
            share.know(state, at + HOLD_SECONDS)
            if any(state.extra):
                self.holding[share] = None
                self._set_timer()

    def _judge(self, one: Waiting, short: Short | None, shares: Sequence[Share], answer: Answer) -> None:
        if short is None:
            for share in one.shares:
                share.let_in(one.tokens)
            taken = self._taken(one.shares, (answer.now // 1000,) * len(one.shares), one.tokens)
            if one.judged.done():
                self._undo(one, taken)
            else:
                one.judged.set_result(taken)
        elif not one.judged.done():
            self._refuse(one, short, shares[short.bucket], answer.states[short.bucket], answer.now)

    def _refuse(self, one: Waiting, short: Short, share: Share, state: State, now: int) -> None:
        """Unless others give back soon what they may not need."""
        one.refused = refusal(share, short, state, one.tokens, now)
        again = short.held_ms / 1000
        if again and self.clock() + again < one.ends:
            asyncio.get_running_loop().call_later(again, self._again, one)
            return
        if short.what == REQUESTS:
            share.shut, share.shut_until = one.refused, self.clock() + min(SHUT_SECONDS, short.wait_ms / 1000)
        one.judged.set_result(one.refused)

    def _again(self, one: Waiting) -> None:
        if not one.judged.done():
            self.waiting.append(one)
            self._pump()

    def _undo(self, one: Waiting, found: Taken | Refusal) -> None:
        """Who asked has gone meanwhile: nothing was consumed."""
        if isinstance(found, Taken):
            found.settle(0)
            for share, cell in zip(one.shares, found.cells, strict=True):
                if share.limits[REQUESTS] >= 0:
                    self._correct(share, cell, -1, 0)

    def _spend_on_waiting(self) -> None:
        """Those who came during an ask need no other where it brought units in advance."""
        waiting, self.waiting = self.waiting, []
        at = self.clock()
        for one in waiting:
            if one.judged.done():
                continue
            if all(share.has(one.tokens, at) for share in one.shares):
                for share in one.shares:
                    share.spend(one.tokens)
                one.judged.set_result(self._taken(one.shares, cells_of(one.shares), one.tokens))
            else:
                self.waiting.append(one)

    # ── alone and back ───────────────────────────────────────────────────────────────────────────
    def _go_alone(self, why: str) -> None:
        if not self.problem:
            log.warning("Limits are counted by this gateway alone: %s", why)
        self.problem = why
        self.holding = {}
        for share in self.shares.values():
            share.void()
        waiting, self.waiting = self.waiting, []
        for one in waiting:
            if not one.judged.done():
                one.judged.set_result(self._alone(one.shares, one.tokens))

    async def look(self) -> None:
        """Renew leases, forget what is over, and see whether the others can be reached again."""
        at = self.clock()
        self.local.sweep(self._now_ms())
        for key, share in list(self.shares.items()):
            if share.idles(at) and share not in self.dirty:
                del self.shares[key]
            elif share.held() and at - share.renewed > self.lease / 3:
                self.dirty[share] = None
        if self.problem:
            await self._return()
        if self.dirty:
            self._tell_all()

    async def _return(self) -> None:
        try:
            answer = await self._ask()
        except Away as away:
            self.problem = str(away)
            return
        log.warning("Limits are counted with all gateways again")
        self.problem = ""
        if not self._begun_anew(answer):
            self.dirty |= dict.fromkeys(self.shares.values())

    async def stop(self) -> None:
        """After the last request: give everything back, and let go of the count."""
        if self._later is not None:
            self._later.cancel()
        if self._running is not None:
            await asyncio.wait([self._running])
        for share in self.shares.values():
            share.give_back()
            share.in_use = 0
        self.dirty, self._urgent = dict.fromkeys(self.shares.values()), True
        await self._run()
        self.problem = self.problem or "The gateway has ended."
        await self.counts.close()

    def health(self) -> dict[str, Any]:
        return {"shared": not self.problem, "problem": self.problem or None}

    def _now_ms(self) -> int:
        """By the clock of the shared count."""
        return int((self.wall() + self._ahead) * 1000)


def cells_of(shares: tuple[Share, ...]) -> tuple[int, ...]:
    """Where what was had in advance is counted."""
    return (shares[0].cell,) if len(shares) == 1 else tuple([share.cell for share in shares])

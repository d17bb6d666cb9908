"""One bucket as a gateway knows it: what it may spend without asking, and what it has to tell the others."""

from __future__ import annotations

from gateway.buckets import (
    LIMITLESS,
    REQUESTS,
    SLOTS,
    SPAN,
    TOKENS,
    WINDOW_SECONDS,
    Bucket,
    Short,
    State,
    Three,
    limits_of,
)
from gateway.cells import Cells
from gateway.errors import Headers, Refusal
from gateway.routes import Quotas

MOST = 4000  # units that a gateway wants in advance
RATE_SECONDS = 0.02  # the shortest time that a rate is judged by
SHUT_SECONDS = 1.0  # how long a refusal may be repeated without asking

NAMES = ("requests", "tokens", "concurrent_requests")
HEADERS = tuple(
    (b"x-ratelimit-limit-" + name, b"x-ratelimit-remaining-" + name, b"x-ratelimit-reset-" + name)
    for name in (b"requests", b"tokens")
)
MINUTE = b"1m0s"
BEHIND = tuple(b"\r\n%b: %b\r\n" % (reset, MINUTE) for *_, reset in HEADERS)  # what is left


class Share:
    """`requests`, `tokens` and `idle` (slots) are had in advance and may be spent until `until`; what was had so
    is counted in the second `cell`. `in_use` are slots of requests that run. `left` is what everybody together
    may still take, as far as this gateway knows. `owed` is to be told; `noted` was let in, whoever counts. `spent`
    since the rate was judged last. `renews`: more is asked for before the hold ends. `told`: headers of limits,
    `before`: the lines of a head up to what is left.
    """

    def __init__(self, name: str, whose: str, quotas: Quotas, at: float) -> None:
        self.name, self.whose = name, whose
        self._limit(quotas)
        self.in_use = 0
        self.requests = self.tokens = self.idle = self.cell = 0
        self.until = self.shut_until = self.renewed = 0.0
        self.owed, self.noted = Cells(), Cells()
        self.renews = False
        self.requests_spent = self.tokens_spent = 0
        self.requests_rate = self.tokens_rate = 0.0
        self.since = self.seen = at
        self.shut: Refusal | None = None

    def change(self, quotas: Quotas) -> None:
        """Other limits from now on; what was had in advance of the old ones goes back."""
        self.give_back()
        self._limit(quotas)
        self.shut_until = 0.0

    def _limit(self, quotas: Quotas) -> None:
        self.quotas, self.limits = quotas, limits_of(quotas)
        self.requests_left, self.tokens_left, self.slots_left = self.limits
        self.told = [(name, b"%d" % limit) for (name, *_), limit in zip(HEADERS, self.limits, strict=False)]
        self.before = [
            b"%b: %b\r\n%b: " % (*told, name) for told, (_, name, _) in zip(self.told, HEADERS, strict=True)
        ]

    def left(self, what: int) -> int:
        return self.tokens_left if what == TOKENS else self.requests_left

    def has(self, tokens: int, at: float) -> bool:
        """Whether a request can be let in without asking."""
        requests, most_tokens, slots = self.limits
        return (
            at < self.until
            and (requests < 0 or self.requests > 0)
            and (most_tokens < 0 or self.tokens >= tokens)
            and (slots < 0 or self.idle > 0)
        )

    def spend(self, tokens: int) -> None:
        """Let a request in with what is had in advance."""
        requests, most_tokens, slots = self.limits
        if requests >= 0:
            self.requests -= 1
        if most_tokens >= 0:
            self.tokens -= tokens
        if slots >= 0:
            self.idle -= 1
        self.requests_left -= 1
        self.tokens_left -= tokens
        self.let_in(tokens)

    def let_in(self, tokens: int) -> None:
        """Note that a request runs, limited or not: a limit that comes meanwhile counts it."""
        self.in_use += 1
        self.requests_spent += 1
        self.tokens_spent += tokens

    def release(self, at: float) -> bool:
        """A request ended; True when others should know that its slot is free."""
        self.in_use -= 1
        if self.limits[SLOTS] < 0:
            return False
        if at < self.until:
            self.idle += 1
            return False
        return True

    def tight(self) -> bool:
        """Whether others may be short of slots."""
        return self.slots_left * 2 < self.limits[SLOTS]

    def far(self) -> bool:
        """Whether less than half of every limit is used, as far as this gateway knows."""
        left = self.requests_left, self.tokens_left, self.slots_left
        return all(limit < 0 or 2 * rest > limit for limit, rest in zip(self.limits, left, strict=True))

    def owe(self, cell: int, requests: int, tokens: int) -> None:
        self._count(self.owed, cell, requests, tokens)

    def note(self, cell: int, requests: int, tokens: int) -> None:
        """Count by ourselves, for when nobody else does."""
        self._count(self.noted, cell, requests, tokens)

    def _count(self, cells: Cells, cell: int, requests: int, tokens: int) -> None:
        limits = self.limits
        cells.add(cell, requests if limits[0] >= 0 else 0, tokens if limits[1] >= 0 else 0)

    def give_back(self) -> None:
        """What is had in advance is to be told as not used."""
        self.owe(self.cell, -self.requests, -self.tokens)
        self.void()

    def keeps(self) -> bool:
        """Whether it has anything in advance, spendable or not."""
        return bool(self.requests or self.tokens or self.idle)

    def void(self) -> None:
        """Have nothing in advance."""
        self.requests = self.tokens = self.idle = 0
        self.until, self.renews = 0.0, False

    # ── asking ───────────────────────────────────────────────────────────────────────────────────
    def tell(self, at: float, *, wants: bool, hold: float) -> Bucket:
        """What is told and wanted in one ask; it owes nothing from here, see `lost`."""
        if wants or at >= self.until:
            self.give_back()
        self.renewed = at
        holding = max(0, int((self.until - at) * 1000))
        want = self._wish(at, hold) if wants or self.renews else (0, 0, 0)
        return Bucket(self.name, self.limits, self.held(), holding, want, self.owed.take())

    def held(self) -> int:
        """Slots that are this gateway's."""
        return 0 if self.limits[SLOTS] == LIMITLESS else self.in_use + self.idle

    def _wish(self, at: float, hold: float) -> Three:
        """Twice what goes in the time of a hold; nothing for a caller who comes less often."""
        elapsed = at - self.since
        if elapsed >= RATE_SECONDS:
            self.requests_rate, self.tokens_rate = self.requests_spent / elapsed, self.tokens_spent / elapsed
            self.requests_spent, self.tokens_spent, self.since = 0, 0, at
        if self.requests_rate * hold < 1:
            return 0, 0, 0
        requests = min(MOST, int(self.requests_rate * hold * 2))
        return requests, int(self.tokens_rate * hold * 2), requests

    def lost(self, told: Bucket) -> None:
        """Whether an ask was heard is unknown: tell again what counts, and let go of what would be given back."""
        for cell, requests, tokens in told.owed:
            self.owe(cell, max(0, requests), max(0, tokens))

    def know(self, state: State, until: float) -> None:
        """Take on what an ask brought; what it gave in advance may be spent until then."""
        requests, tokens, slots = self.limits
        self.requests_left, self.tokens_left = requests - state.used[REQUESTS], tokens - state.used[TOKENS]
        self.slots_left = slots - state.used[SLOTS]
        if any(state.extra):
            self.give_back()  # what is left, where new ones came before its end
            self.requests, self.tokens, self.idle = state.extra
            self.cell, self.until = state.cell, until
        self.requests_left += self.requests
        self.tokens_left += self.tokens

    def idles(self, at: float) -> bool:
        """Whether nothing would be lost with it."""
        return not (self.in_use or self.owed) and at >= self.until and at - self.seen > 2 * WINDOW_SECONDS


# ── what callers are told ────────────────────────────────────────────────────────────────────────
def headers_of(shares: tuple[Share, ...], reset: tuple[bytes, bytes] = (MINUTE, MINUTE)) -> Headers:
    """The tightest limit of requests and that of tokens. Reset is when nothing of the last minute counts any
    more, which for a request that was let in just now is a minute away."""
    found = []
    for what, (_, remaining, resets) in enumerate(HEADERS):
        tight = None
        for share in shares:
            if share.limits[what] != LIMITLESS and (tight is None or share.left(what) < tight.left(what)):
                tight = share
        if tight is not None:
            left = tight.left(what)
            found += [tight.told[what], (remaining, b"%d" % max(0, left)), (resets, reset[what])]
    return tuple(found)


def lines_of(shares: tuple[Share, ...]) -> bytes:
    """The same for a request that was let in, as lines of a head."""
    if len(shares) > 1:
        return b"".join([b"%b: %b\r\n" % header for header in headers_of(shares)])
    share, lines = shares[0], b""
    requests, tokens, _ = share.limits
    if requests >= 0:
        lines = b"%b%b%b" % (share.before[0], str(max(0, share.requests_left)).encode(), BEHIND[0])
    if tokens >= 0:
        lines = b"%b%b%b%b" % (lines, share.before[1], str(max(0, share.tokens_left)).encode(), BEHIND[1])
    return lines


def refusal(share: Share, short: Short, state: State, tokens: int, now: int) -> Refusal:
    """Which limit, whose, what is used of it, and when there is room again."""
    what, limit = short.what, share.limits[short.what]
    seconds = max(1, -(-short.wait_ms // 1000))
    may, again = f"{share.whose} may", f"There is room again in {seconds} s."
    if what == SLOTS:
        said = f"{may} have {_many(limit, 'request')} running at once; {short.used:,} run now."
        again = "Try again when one of them has ended."
    elif what == REQUESTS:
        said = f"{may} make {_many(limit, 'request')} a minute; {short.used:,} were made in the last 60 s."
    else:
        said = (
            f"{may} use {_many(limit, 'token')} a minute; {short.used:,} are used or reserved in these 60 s, and "
        )
        said += f"this request asks for up to {tokens:,}."
    resets = [_duration((last + SPAN) * 1000 - now) for last in state.last]
    wait = ((b"retry-after", b"%d" % seconds),)
    headers = wait + headers_of((share,), (resets[REQUESTS], resets[TOKENS]))
    return Refusal(429, "rate_limit_exceeded", f"{said} {again}", type=NAMES[what], headers=headers)


def too_large(share: Share, tokens: int) -> Refusal:
    """No wait helps a request that alone is over the limit."""
    said = (
        f"{share.whose} may use {share.limits[TOKENS]:,} tokens a minute, and this request alone asks for up to "
    )
    said += f"{tokens:,}: its prompt and the longest answer it allows. Lower max_tokens or send less text."
    return Refusal(429, "rate_limit_exceeded", said, type=NAMES[TOKENS], headers=headers_of((share,)))


def _many(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _duration(milliseconds: int) -> bytes:
    """As OpenAI writes it, such as 1m0s, 12s."""
    minutes, seconds = divmod(max(0, -(-milliseconds // 1000)), 60)
    return b"%dm%ds" % (minutes, seconds) if minutes else b"%ds" % seconds

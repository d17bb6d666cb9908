"""What Prometheus scrapes of one gateway process: its text format, version 0.0.4, written by hand.

Counters go on from the process's start to its end; those of an endpoint that is gone are no longer shown. A
bucket counts what took at most so long, to the microsecond.
"""

import hmac
import ipaddress
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import psutil

from gateway import compiled, errors
from gateway.ended import Ended
from gateway.errors import Refusal
from gateway.routes import Route
from gateway.totals import ABORTED, CLIENT_ERROR, OK, SERVER_ERROR, SWITCHED, class_of

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
# Seconds: three a decade, from a gateway's own millisecond to the longest generation.
BOUNDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0,
    1000.0,
)  # fmt: skip
BOUNDS_US = tuple(round(bound * 1_000_000) for bound in BOUNDS)
CLASSES = (OK, CLIENT_ERROR, ABORTED, SERVER_ERROR)
MOST_CODES, OTHER = 50, "other"  # of one endpoint, whose engine may write anything there

Labels = Mapping[str, str]
Number = int | float  # told as it is: compiled, a whole number given for a float would become one


class Spread:
    """Durations by bucket, the last for what is longer than all; never reset."""

    __slots__ = ("counts", "sum_us")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.sum_us = 0

    def add(self, microseconds: int) -> None:
        self.counts[bisect_left(BOUNDS_US, microseconds)] += 1
        if microseconds > 0:  # else a clock was set back
            self.sum_us += microseconds


@dataclass(slots=True)
class Series:
    """One endpoint's counts since the process began."""

    classes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CLASSES, 0))
    codes: dict[str, int] = field(default_factory=dict)
    latency: Spread = field(default_factory=Spread)
    ttft: Spread = field(default_factory=Spread)
    waited: int = 0
    wait_us: int = 0
    cold: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated_tokens: int = 0
    bytes_in: int = 0
    bytes_out: int = 0

    def add(self, one: Ended) -> None:
        """Fields are taken out all at once, which is half the price of naming them one by one."""
        _, _, _, _, status, latency_us, ttft_us, prompt, completion, estimated, came, went = one[0]
        self.classes[class_of(status)] += 1
        if status != SWITCHED:
            self.latency.add(latency_us)
        if ttft_us is not None:
            self.ttft.add(ttft_us)
        if one.code:
            code = one.code if one.code in self.codes or len(self.codes) < MOST_CODES else OTHER
            self.codes[code] = self.codes.get(code, 0) + 1
        if one.queue_us:
            self.waited += 1
            self.wait_us += one.queue_us
            self.cold += one.cold
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        if estimated:
            self.estimated_tokens += prompt + completion
        self.bytes_in += came
        self.bytes_out += went


@dataclass(frozen=True)
class Duty:
    """A thing that the keeper does again and again: when it last worked (seconds since 1970), and if it fails."""

    name: str
    last: float | None
    failing: bool


@dataclass(frozen=True)
class Now:
    """What only shows at the moment of a scrape. `in_flight` and `ejected` go by instance name, `waiting` (for a
    turn or for the endpoint to wake) and `sockets` by endpoint id, `refused` by the error's code."""

    source: str
    routes: Mapping[str, Route]
    in_flight: Mapping[str, int]
    ejected: Iterable[str]
    waiting: Mapping[int, int]
    sockets: Mapping[int, int]
    connections: int
    refused: Mapping[str, int]
    duties: Sequence[Duty]
    spool_failures: int
    unwritten_rows: int
    passports_dropped: int


class Metrics:
    """Counts what has ended and writes the page. `token` opens it to scrapers elsewhere; `proxied` says that a
    proxy stands in front, so that being called from this machine proves nothing."""

    def __init__(self, token: str = "", *, proxied: bool = False) -> None:
        self.token = token.encode()
        self.proxied = proxied
        self.series: dict[int, Series] = {}
        self.lag = Spread()

    def fold(self, batch: Sequence[Ended]) -> None:
        for one in batch:
            series = self.series.get(one.record.endpoint_id)
            if series is None:
                series = self.series[one.record.endpoint_id] = Series()
            series.add(one)

    def late(self, seconds: float) -> None:
        """The event loop came so much later than it was asked to."""
        self.lag.add(round(seconds * 1_000_000))

    def allowed(self, peer: str, authorization: str | None, *, forwarded: bool = False) -> bool:
        """With a token, whoever sends it. Without one, this machine alone, for itself: `forwarded` says that a
        proxy speaks for somebody else."""
        if self.token:
            scheme, _, given = (authorization or "").partition(" ")
            return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.token)
        return not (self.proxied or forwarded) and is_loopback(peer)

    @property
    def denial(self) -> Refusal:
        """What those get who aren't allowed."""
        if self.token:
            return errors.no_key("Metrics take 'Authorization: Bearer <METRICS_TOKEN>'.", code="metrics_token")
        where = "Metrics are read on this machine only. Set METRICS_TOKEN to read them from elsewhere."
        return errors.forbidden(where, code="metrics_token")

    def render(self, now: Now) -> bytes:
        page = Page()
        names = {route.endpoint_id: route.name for route in now.routes.values()}
        self.series = {key: series for key, series in self.series.items() if key in names}
        counted = {names[key]: self.series[key] for key in sorted(self.series, key=names.__getitem__)}
        write_requests(page, counted)
        write_amounts(page, counted)
        page.each(
            "tir_gateway_rejected_calls_total", "counter", "Calls of no endpoint yet, such as one without a key.",
            (({"code": code}, count) for code, count in sorted(now.refused.items())),
        )  # fmt: skip
        write_endpoints(page, now)
        write_duties(page, now)
        page.family("tir_gateway_event_loop_lag_seconds", "histogram", "How late the event loop comes to a timer.")
        page.spread("tir_gateway_event_loop_lag_seconds", {}, self.lag)
        write_process(page)
        return page.text()


class Page:
    """Lines of the text format. Every family is begun once and holds all its samples."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def family(self, name: str, kind: str, about: str) -> None:
        self.lines += (f"# HELP {name} {about}", f"# TYPE {name} {kind}")

    def sample(self, name: str, labels: Labels, value: Number) -> None:
        inside = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
        self.lines.append(f"{name}{{{inside}}} {value}" if inside else f"{name} {value}")

    def one(self, name: str, kind: str, about: str, value: Number, labels: Labels | None = None) -> None:
        self.family(name, kind, about)
        self.sample(name, labels or {}, value)

    def each(self, name: str, kind: str, about: str, values: Iterable[tuple[Labels, Number]]) -> None:
        self.family(name, kind, about)
        for labels, value in values:
            self.sample(name, labels, value)

    def spread(self, name: str, labels: Labels, spread: Spread) -> None:
        within = 0
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), spread.counts, strict=True):
            within += count
            self.sample(f"{name}_bucket", {**labels, "le": bound}, within)
        self.sample(f"{name}_sum", labels, spread.sum_us / 1_000_000)
        self.sample(f"{name}_count", labels, within)

    def text(self) -> bytes:
        return ("\n".join(self.lines) + "\n").encode()


def write_requests(page: Page, counted: Mapping[str, Series]) -> None:
    page.each(
        "tir_gateway_requests_total", "counter", "Requests that ended, by class of status; 499: the client left.",
        (({"endpoint": name, "status": kind}, count)
         for name, one in counted.items() for kind, count in one.classes.items()),
    )  # fmt: skip
    page.each(
        "tir_gateway_refusals_total", "counter", "Requests that the gateway itself answered, by its error's code.",
        (({"endpoint": name, "code": code}, count)
         for name, one in counted.items() for code, count in sorted(one.codes.items())),
    )  # fmt: skip
    page.family("tir_gateway_request_duration_seconds", "histogram", "From a request's arrival to its end.")
    for name, one in counted.items():
        page.spread("tir_gateway_request_duration_seconds", {"endpoint": name}, one.latency)
    page.family(
        "tir_gateway_time_to_first_token_seconds", "histogram", "From arrival to the first token; streams."
    )
    for name, one in counted.items():
        page.spread("tir_gateway_time_to_first_token_seconds", {"endpoint": name}, one.ttft)


def write_amounts(page: Page, counted: Mapping[str, Series]) -> None:
    page.each(
        "tir_gateway_tokens_total", "counter", "Tokens read and written, estimated ones among them.",
        (({"endpoint": name, "kind": kind}, count) for name, one in counted.items()
         for kind, count in (("prompt", one.prompt_tokens), ("completion", one.completion_tokens))),
    )  # fmt: skip
    for name, about, attribute in (
        ("tir_gateway_estimated_tokens_total", "Tokens that no engine counted.", "estimated_tokens"),
        ("tir_gateway_request_bytes_total", "Bytes of request bodies.", "bytes_in"),
        ("tir_gateway_response_bytes_total", "Bytes of answers' bodies.", "bytes_out"),
        ("tir_gateway_waits_total", "Requests that waited for a turn or for the endpoint to wake.", "waited"),
        ("tir_gateway_cold_waits_total", "Those of them that waited for the endpoint to wake.", "cold"),
    ):
        page.each(
            name,
            "counter",
            about,
            (({"endpoint": known}, getattr(one, attribute)) for known, one in counted.items()),
        )
    page.each(
        "tir_gateway_wait_seconds_total", "counter", "How long requests waited, in all.",
        (({"endpoint": name}, one.wait_us / 1_000_000) for name, one in counted.items()),
    )  # fmt: skip


def write_endpoints(page: Page, now: Now) -> None:
    page.one("tir_gateway_endpoints", "gauge", "Endpoints in the route table.", len(now.routes))
    page.each(
        "tir_gateway_ready_instances", "gauge", "Instances that may be asked.",
        (({"endpoint": name}, len(route.ready)) for name, route in now.routes.items()),
    )  # fmt: skip
    ejected = set(now.ejected)
    page.each(
        "tir_gateway_ejected_instances", "gauge", "Ready ones left out for a moment because they failed.",
        (({"endpoint": name}, sum(one.name in ejected for one in route.ready))
         for name, route in now.routes.items()),
    )  # fmt: skip
    page.each(
        "tir_gateway_in_flight_requests", "gauge", "Requests that an instance is answering for this gateway.",
        (({"endpoint": name, "instance": one.name}, now.in_flight.get(one.name, 0))
         for name, route in now.routes.items() for one in route.instances),
    )  # fmt: skip
    page.each(
        "tir_gateway_waiting_requests", "gauge", "Requests held for a turn or until the endpoint wakes.",
        (({"endpoint": name}, now.waiting.get(route.endpoint_id, 0)) for name, route in now.routes.items()),
    )  # fmt: skip
    page.each(
        "tir_gateway_open_websockets", "gauge", "Websockets that are open; they count as in flight too.",
        (({"endpoint": name}, now.sockets.get(route.endpoint_id, 0)) for name, route in now.routes.items()),
    )  # fmt: skip
    page.one("tir_gateway_connections", "gauge", "Open connections of clients.", now.connections)


def write_duties(page: Page, now: Now) -> None:
    page.each(
        "tir_gateway_last_success_timestamp_seconds", "gauge",
        "When it last worked; time() minus that of routes is the age of the route table.",
        (({"duty": one.name}, one.last) for one in now.duties if one.last is not None),
    )  # fmt: skip
    page.each(
        "tir_gateway_failing", "gauge", "1 while it does not work.",
        (({"duty": one.name}, int(one.failing)) for one in now.duties),
    )  # fmt: skip
    failures = "Counts that the local disk did not take."
    page.one("tir_gateway_spool_failures_total", "counter", failures, now.spool_failures)
    page.one("tir_gateway_unwritten_rows", "gauge", "Counts that wait for the database.", now.unwritten_rows)
    lost = "Requests that were to be remembered and were not, because the database took none."
    page.one("tir_gateway_passports_dropped_total", "counter", lost, now.passports_dropped)
    known = {"source": now.source, "compiled": "yes" if compiled.runs else "no"}
    page.one("tir_gateway_info", "gauge", "Which gateway this is, and whether its hot path is compiled.", 1, known)


def write_process(page: Page) -> None:
    """Under the names that every Prometheus client gives them."""
    process = psutil.Process()
    with process.oneshot():
        used, memory = process.cpu_times(), process.memory_info()
        page.one("process_cpu_seconds_total", "counter", "CPU time used.", used.user + used.system)
        page.one("process_resident_memory_bytes", "gauge", "Resident memory.", memory.rss)
        page.one("process_open_fds", "gauge", "Open file descriptors.", process.num_fds())
        began = "Start of the process, in seconds since 1970."
        page.one("process_start_time_seconds", "gauge", began, process.create_time())


def escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


@lru_cache(maxsize=64)
def is_loopback(peer: str) -> bool:
    """Whether an address is of this machine; what is none is not."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback

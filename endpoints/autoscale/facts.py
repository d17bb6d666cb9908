"""What the autoscaler is given and what it answers, as frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True)
class Signal:
    """One endpoint at one moment, over all gateways.

    `in_flight` None: no gateway was heard, which is not zero requests. `whole` False: a gateway that spoke
    lately is silent, so the counts are a lower bound. `idle`: of the ready instances, those that carry
    nothing. `cpu`, `memory`: mean of the ready instances, per cent of their machines; None: not measured.
    `room`: how many more the region holds; None: not known.
    """

    in_flight: int | None
    wanted: int
    ready: int
    queued: int = 0
    starting: int = 0
    draining: int = 0
    idle: int = 0
    cpu: float | None = None
    memory: float | None = None
    whole: bool = True
    deploying: bool = False
    room: int | None = None

    @property
    def load(self) -> int:
        """Requests that want to be answered now. Only of a signal that was heard."""
        return (self.in_flight or 0) + self.queued

    @property
    def is_idle(self) -> bool:
        """Whether it could serve and nobody calls; not while anything is on its way up."""
        return bool(self.ready) and not (self.load or self.starting or self.deploying)

    @property
    def hottest(self) -> float | None:
        """The greater of CPU and memory, per cent."""
        return max((one for one in (self.cpu, self.memory) if one is not None), default=None)


@dataclass(frozen=True)
class Policy:
    """What the owner set, and our own paces.

    `target`: requests per instance; `threshold`: per cent of CPU or memory that asks for one more; `delay`:
    how long fewer must have been enough. `panic`: the shortest stretch whose mean asks for more, and the
    pause between two steps up. `window`: the mean that calms, and the pause between two steps down. A step
    up adds at most `step` instances or as many as there are, a step down takes at most half. `spare`: how many
    are kept above what the requests need, as far as `max` allows.
    """

    min: int
    max: int
    target: int = 10
    threshold: int = 80
    delay: timedelta = timedelta(seconds=300)
    window: timedelta = timedelta(seconds=30)
    panic: timedelta = timedelta(seconds=6)
    step: int = 4
    spare: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.min <= self.max or self.max < 1:
            raise ValueError(f"min {self.min} and max {self.max} are no range of instances")
        if self.target < 1 or self.step < 1 or self.threshold < 1 or self.spare < 0:
            raise ValueError("target, threshold and step are at least 1, spare at least 0")
        if not timedelta(0) < self.panic <= self.window <= self.delay:
            raise ValueError("a delay shorter than the window that it waits for would make it thrash")

    def within(self, instances: int) -> int:
        return max(self.min, min(self.max, instances))

    @property
    def rest(self) -> int:
        """How many are kept where there is nothing to do."""
        return self.within(self.spare)


@dataclass(frozen=True)
class Decision:
    """Another number than is wanted now, and one sentence with the inputs that led to it."""

    wanted: int
    why: str

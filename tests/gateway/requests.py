"""Requests that have ended, as telemetry is told of them."""

from typing import Any

from gateway.ended import Ended
from gateway.totals import Record

AT = 1_772_356_050.125  # 2026-03-01 09:07:30.125 UTC


def ended(
    status: int = 200, *, at: float = AT, ms: float = 20, endpoint: int = 5, code: str = "", **facts: Any
) -> Ended:
    """One request; `facts` are of the record where it has such a field, else of what is told beside it."""
    record = {name: facts.pop(name) for name in Record._fields if name in facts}
    known = {"revision_id": 7, "key_id": 1, "latency_us": round(ms * 1000)} | record
    whole = {"request_id": "r-1", "method": "POST", "path": "v1/chat/completions"} | facts
    return Ended(Record(at=at, endpoint_id=endpoint, status=status, **known), code=code, **whole)

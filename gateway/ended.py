"""All that is known of one request once it has ended: what counts, and what only tells how it went."""

from typing import NamedTuple

from gateway.bodies import Bodies
from gateway.totals import Record


class Ended(NamedTuple):
    """`record` is what is metered; the rest is for the access log and the request's passport.

    `path` is the one behind the endpoint, such as `v1/chat/completions`. `instance` is the name of the one that
    was asked, "" if none was. `code` is that of a refusal of ours, "" where the engine answered. Times in
    microseconds: `queue_us` for a turn (`cold`: for the endpoint to wake), `connect_us` for a connection,
    `first_byte_us` from the request's arrival to the first byte of the engine's answer.
    `address` is where the call came from, "" unless the access log asks for it; `bodies` what was said, for the
    few requests of endpoints that opted in, None else.
    """

    record: Record
    request_id: str
    method: str
    path: str
    instance: str = ""
    code: str = ""
    stream: bool = False
    cold: bool = False
    queue_us: int = 0
    connect_us: int = 0
    first_byte_us: int | None = None
    address: str = ""
    bodies: Bodies | None = None

"""Which requests are remembered one by one: the numbers that gateways keep to, and the page tells."""

ERRORS_OF_A_KIND = 10  # a minute, of one status and code
ERRORS = 30  # a minute
SLOWEST = 5  # a minute
FIRST = 3  # a minute
ONE_IN = 1_000
SAMPLES = 60  # a minute, those first ones among them

RULES = (
    f"Each gateway remembers, of every endpoint and minute, up to {ERRORS} errors ({ERRORS_OF_A_KIND} of a kind), "
    f"the {SLOWEST} slowest requests once the minute is over, the first {FIRST}, and one in {ONE_IN:,}."
)
BEFORE = "A call without a valid key, or to no endpoint, belongs to none and is not here."


def kept_for(days: int) -> str:
    """How long, in words."""
    if not days:
        return "This installation remembers none."
    return f"They are kept for {days} day{'' if days == 1 else 's'}."

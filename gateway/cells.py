"""Requests and tokens by the second they count in, where one second at a time gets nearly all."""

from gateway.buckets import Three


class Cells:
    """Sums, which may be negative."""

    def __init__(self) -> None:
        self.second = 0  # the one whose sums are these two
        self.requests = 0
        self.tokens = 0
        self.others: dict[int, tuple[int, int]] = {}

    def add(self, second: int, requests: int, tokens: int) -> None:
        if second != self.second:
            self._turn_to(second)
        self.requests += requests
        self.tokens += tokens

    def take(self) -> list[Three]:
        """(second, requests, tokens) of all that has any; nothing is left."""
        self._turn_to(0)
        found = [(second, requests, tokens) for second, (requests, tokens) in self.others.items()]
        self.others = {}
        return found

    def __bool__(self) -> bool:
        return bool(self.requests or self.tokens or self.others)

    def _turn_to(self, second: int) -> None:
        if self.requests or self.tokens:
            self.others[self.second] = self.requests, self.tokens
        self.second = second
        self.requests, self.tokens = self.others.pop(second, (0, 0))

"""What ends `up` before it runs, as one line for a person."""


class Trouble(Exception):
    """`str()` is one line: what is wrong and what to change."""

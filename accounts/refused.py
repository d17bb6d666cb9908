"""What people and programs are told when an act can't be done now."""


class Refused(Exception):
    """An act that can't be done; the text is for the person who asked. `field` names what to mend."""

    def __init__(self, message: str, *, field: str = "", code: str = "refused") -> None:
        super().__init__(message)
        self.field = field
        self.code = code

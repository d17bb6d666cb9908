"""Pages of people and projects."""

from accounts.views.entry import locked_out

__all__ = ["locked_out"]  # settings name it

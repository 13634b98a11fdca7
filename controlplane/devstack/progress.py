"""How the devstack tells what it does, and what it can't do."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told of each step of a part (a backend's name); `done` ends the part."""

    def __call__(self, part: str, message: str, *, done: bool = False) -> None:
        """Show a step."""


def silent(part: str, message: str, *, done: bool = False) -> None:
    """Show nothing."""


class DevstackError(Exception):
    """A backend can't be had or doesn't start. `hint` is the person's next step."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

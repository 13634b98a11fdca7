"""How a verb ends when it didn't do what was asked."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the shell sees."""

    DONE = 0
    FAILED = 1
    DIFFERS = 2
    TIMED_OUT = 3


class Failure(Exception):
    """The person's problem, in words: what went wrong, the places it went wrong at, and what to do about it."""

    def __init__(
        self,
        message: str,
        *,
        faults: tuple[tuple[str, str], ...] = (),
        hint: str = "",
        code: ExitCode = ExitCode.FAILED,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.faults = faults
        """(place, message)"""
        self.hint = hint
        self.code = code


class Ended(Exception):
    """Everything has been said already; only the exit code is left."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code)
        self.code = code

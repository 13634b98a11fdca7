"""Progress of a start: what is being done for each part, and how long it took."""

from __future__ import annotations

import time

from rich.text import Text

from controlplane.cli import printing


class Steps:
    """Called with a part and what happens to it; `done` ends the part. A line each where there is no terminal."""

    def __init__(self) -> None:
        self._console = printing.stderr()
        self._begun: dict[str, float] = {}

    def __call__(self, part: str, message: str, *, done: bool = False) -> None:
        """Show a step."""
        begun = self._begun.setdefault(part, time.monotonic())
        mark = Text("✓", "green") if done else Text("·", "dim")
        took = f"  ({time.monotonic() - begun:.1f} s)" if done else ""
        self._console.print(Text.assemble(mark, f" {part:<12} ", message, (took, "dim")), soft_wrap=True)

"""Figures beside those of the bare client, as one table. What is medians of what, the rows say."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console
from rich.table import Table

_SPELLING = {
    "ms": "{:,.1f} ms",
    "s": "{:,.2f} s",
    "MB": "{:,.0f} MB",
    "/s": "{:,.0f}/s",
    "µs": "{:,.2f} µs",
    "": "{:,.0f}",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. `most` and `least`: aimed-at bounds of the figure; `most_ratio`: of figure to bare figure."""

    what: str
    value: float
    unit: str
    bare: float | None = None
    most: float | None = None
    least: float | None = None
    most_ratio: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        return None if not self.bare else self.value / self.bare

    @property
    def held(self) -> bool | None:
        """None: nothing was aimed at."""
        if self.most is not None:
            return self.value <= self.most
        if self.least is not None:
            return self.value >= self.least
        if self.most_ratio is not None and self.ratio is not None:
            return self.ratio <= self.most_ratio
        return None


@dataclass(slots=True)
class Figures:
    """What a run has measured so far."""

    console: Console
    rows: list[tuple[str, list[Figure]]] = field(default_factory=list)

    def group(self, title: str) -> None:
        self.rows.append((title, []))
        self.console.print(f"[dim]{title} …")

    def add(self, what: str, value: float, unit: str, **more: float | str | None) -> None:
        figure = Figure(what, value, unit, **more)  # type: ignore[arg-type]
        self.rows[-1][1].append(figure)
        self.console.print(f"[dim]    {what}: {spelt(value, unit)}")

    def table(self) -> Table:
        load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
        table = Table(
            title=f"Coreplane beside bare clients · {os.cpu_count()} cores · load {load}", title_justify="left"
        )
        table.add_column("what", overflow="fold")
        for name in ("coreplane", "bare", "ratio", "aim"):
            table.add_column(name, justify="right")
        table.add_column("note", style="dim", overflow="fold")
        for title, figures in self.rows:
            table.add_section()
            table.add_row(f"[bold]{title}")
            for figure in figures:
                table.add_row(*_cells(figure))
        return table


def _cells(figure: Figure) -> list[str]:
    aim = spelt(figure.most, figure.unit) if figure.most is not None else ""
    aim = f"{figure.most_ratio:g} x" if figure.most_ratio is not None else aim
    aim = f"≤ {aim}" if aim else ""
    aim = f"≥ {spelt(figure.least, figure.unit)}" if figure.least is not None else aim
    colour = {None: "", True: "[green]", False: "[red]"}[figure.held]
    return [
        f"  {figure.what}",
        f"{colour}{spelt(figure.value, figure.unit)}",
        "" if figure.bare is None else spelt(figure.bare, figure.unit),
        "" if figure.ratio is None else f"{figure.ratio:.2f}",
        aim,
        figure.note,
    ]


def spelt(value: float, unit: str) -> str:
    return _SPELLING[unit].format(value)


def percentile(values: Sequence[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], unit: str) -> str:
    """For a note."""
    return f"{len(values)} x, {spelt(min(values), unit)} to {spelt(max(values), unit)}"


class Stopwatch:
    """Wall and CPU time of this process, seconds."""

    def __enter__(self) -> Self:
        self.wall_s, self.cpu_s = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter()
        self.cpu_s += time.process_time()

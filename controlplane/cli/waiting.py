"""Following settings until they are as declared.

Each look asks the daemon for what isn't settled yet: one by one while that is few, by listing their types when it is
many. A setting is *done* when the generation that was declared is Ready (or Paused: then nothing will be done), and
*stuck* when it Stalled at that generation, or drifted where drift is only reported. A stalled setting may go on when
something else is mended, so it is looked at until the others are done too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from controlplane.cli import printing, tables
from controlplane.cli.failure import ExitCode, Failure
from controlplane.cli.rows import Rows
from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient

Json = dict[str, Any]

LOOK_S = 0.25
LOOK_CAP_S = 1.0
FEW = 8
"""Up to so many settings of a type are asked for one by one."""
SHOWN = 20

GONE = -1
"""The generation to wait for when a setting is to disappear."""


@dataclass
class Watch:
    """What is waited for (`type/name` → generation, or GONE) and how each was seen last (None: absent)."""

    wanted: Mapping[str, int]
    seen: dict[str, Json | None] = field(default_factory=dict)

    def verdict(self, reference: str) -> str:
        """`done`, `stuck` or `waiting`."""
        return verdict(self.seen.get(reference), self.wanted[reference]) if reference in self.seen else "waiting"

    def having(self, *verdicts: str) -> list[str]:
        """The references with one of the verdicts, in the order they were declared."""
        return [reference for reference in self.wanted if self.verdict(reference) in verdicts]


def verdict(setting: Json | None, generation: int) -> str:
    """What to make of a setting (None: absent) when `generation` is wanted."""
    if setting is None:
        return "done" if generation == GONE else "waiting"
    status = setting.get("status") or {}
    phase, observed = status.get("phase"), status.get("observed_generation") or 0
    if phase == "Stalled" and (generation == GONE or observed >= generation):
        return "stuck"
    if generation == GONE:
        return "stuck" if phase == "Paused" else "waiting"  # it isn't dealt with until somebody ends the pause
    if phase == "Drifted" and observed >= generation and (setting.get("policy") or {}).get("drift") == "report":
        return "stuck"  # nobody will bring it back
    return "done" if phase == "Paused" or (phase == "Ready" and observed >= generation) else "waiting"


async def settle(
    client: CoreplaneClient,
    watch: Watch,
    timeout_s: float,
    seen: Callable[[Watch], None],
    *,
    idle_s: float | None = None,
) -> bool:
    """Look until nothing is waiting; False when `timeout_s` is over first. `seen` is called after every look.

    `idle_s`: also False when nothing has changed for so long. What waits then waits for a person.
    """
    end = time.monotonic() + timeout_s
    pause_s = LOOK_S
    states: list[str] = []
    changed_at = time.monotonic()
    while True:
        await _look(client, watch)
        seen(watch)
        if not watch.having("waiting"):
            return True
        before, states = states, [_state(watch, reference) for reference in watch.wanted]
        changed_at = changed_at if states == before else time.monotonic()
        left_s = min(end, changed_at + (timeout_s if idle_s is None else idle_s)) - time.monotonic()
        if left_s <= 0:
            return False
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(LOOK_CAP_S, pause_s * 1.25)


async def _look(client: CoreplaneClient, watch: Watch) -> None:
    by_type: dict[str, list[str]] = {}
    for reference in watch.having("waiting", "stuck"):
        setting_type, _, name = reference.partition("/")
        by_type.setdefault(setting_type, []).append(name)
    for setting_type, names in by_type.items():
        found = await _found(client, setting_type, names)
        watch.seen.update({f"{setting_type}/{name}": found.get(name) for name in names})


async def _found(client: CoreplaneClient, setting_type: str, names: list[str]) -> dict[str, Json]:
    if len(names) > FEW:
        return {item["name"]: item async for item in client.list_settings(setting_type=setting_type)}
    found = {}
    for name in names:
        try:
            found[name] = await client.get_setting(setting_type, name)
        except ApiError as exc:
            if exc.status != 404:
                raise
    return found


class Progress:
    """The looks, shown: a live table on a terminal, a line a change elsewhere (or nothing when `quiet`)."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = printing.stderr()
        self._quiet = quiet
        self._live = Live(console=self._console, transient=True, refresh_per_second=8)
        self._told: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._is_live():
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_live():
            self._live.stop()

    def __call__(self, watch: Watch) -> None:
        """Show a look."""
        if self._is_live():
            self._live.update(picture(watch))
        elif not self._quiet:
            for line in self._changes(watch):
                self._console.print(line, soft_wrap=True)

    def _is_live(self) -> bool:
        return self._console.is_terminal and not self._quiet

    def _changes(self, watch: Watch) -> Iterable[Text]:
        for reference in watch.wanted:
            told = _state(watch, reference)
            if told != self._told.get(reference):
                self._told[reference] = told
                yield Text(f"{reference}  {told}")


def picture(watch: Watch) -> RenderableType:
    """At most SHOWN settings, those that aren't done first, under a line that counts all."""
    order = {"stuck": 0, "waiting": 1, "done": 2}
    references = sorted(watch.wanted, key=lambda reference: order[watch.verdict(reference)])
    body = [
        (reference, tables.phase_text(_phase(watch, reference)), _message(watch, reference))
        for reference in references[:SHOWN]
    ]
    if len(references) > SHOWN:
        body.append((f"… {len(references) - SHOWN} more", Text(""), ""))
    title = Text(f"{len(watch.having('done'))} of {len(references)} as declared", "bold")
    return Group(title, Rows(["SETTING", "PHASE", "MESSAGE"], body))


def _phase(watch: Watch, reference: str) -> str:
    setting = watch.seen.get(reference)
    if setting is None:
        return "Gone" if watch.wanted[reference] == GONE and reference in watch.seen else "Pending"
    # Ready at an older generation would read as done.
    phase, late = tables.phase_of(setting), watch.verdict(reference) == "waiting"
    return "Pending" if phase == "Ready" and late and watch.wanted[reference] != GONE else phase


def _message(watch: Watch, reference: str) -> str:
    setting = watch.seen.get(reference)
    return tables.message_of(setting) if setting and watch.verdict(reference) != "done" else ""


def _state(watch: Watch, reference: str) -> str:
    message = _message(watch, reference)
    return f"{_phase(watch, reference)}  {message}" if message else _phase(watch, reference)


async def until_phase(client: CoreplaneClient, reference: tuple[str, str], phase: str, timeout_s: float) -> bool:
    """Look until the setting is in the phase, whatever its generation; False when `timeout_s` is over first."""
    end = time.monotonic() + timeout_s
    while tables.phase_of(await client.get_setting(*reference)) != phase:
        if time.monotonic() >= end:
            return False
        await asyncio.sleep(LOOK_S)
    return True


def conclude(watch: Watch, *, in_time: bool, wait_s: float) -> None:
    """Nothing when all is as declared, else a Failure that names which isn't and why."""
    stuck, late = watch.having("stuck"), watch.having("waiting")
    if stuck:
        msg = f"{_number(stuck)} can't go on" + (f", {_number(late)} not done yet" if late else "")
        hint = f"coreplane describe {stuck[0].replace('/', ' ')}"
        raise Failure(msg, faults=tuple((ref, _state(watch, ref)) for ref in (stuck + late)[:SHOWN]), hint=hint)
    if not in_time:
        msg = f"{_number(late)} not done after {wait_s:g} s"
        faults = tuple((reference, _state(watch, reference)) for reference in late[:SHOWN])
        raise Failure(msg, faults=faults, code=ExitCode.TIMED_OUT)


def _number(references: list[str]) -> str:
    return f"{len(references)} setting{'' if len(references) == 1 else 's'}"

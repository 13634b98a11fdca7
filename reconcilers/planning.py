"""What planners of several services share: objects that exist once per node of a target, and how their plans conclude.

Here belongs what two services' planners need and no backend knows. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from reconcilers.contract import Difference, Plan, Step, TerminalError

T = TypeVar("T")

SILENT_RETRY_S: Final = 5.0
"""Pause before a node that gave no answer is asked again."""


@dataclass(frozen=True, slots=True)
class Nodes(Generic[T]):
    """One object as each node of its target holds it. Nodes that gave no answer are unknown, not absent."""

    held: Mapping[str, T]
    silent: Mapping[str, str] = field(default_factory=dict)
    """Node → why it gave no answer."""

    @property
    def several(self) -> bool:
        """True when people need to be told which node is meant."""
        return len(self.held) + len(self.silent) > 1

    def path(self, path: str, node: str) -> str:
        """The owned path, with the node when there are several: `/commands`, `/commands@10.0.0.2:6379`."""
        return f"{path}@{node}" if self.several else path

    def said(self, message: str, node: str) -> str:
        """The message, with the node when there are several."""
        return f"{node}: {message}" if self.several else message


def concluded(
    nodes: Nodes[T],
    steps: Sequence[Step],
    *,
    differences: Sequence[Difference] = (),
    blocked: TerminalError | None = None,
    warnings: Iterable[str] = (),
) -> Plan:
    """The plan for the nodes that answered; when nothing is left to do there, it waits for the others."""
    plan = Plan(tuple(steps), tuple(differences), blocked, warnings=tuple(dict.fromkeys(warnings)))
    if steps or blocked is not None or not nodes.silent:
        return plan
    why = "; ".join(f"{node}: {message}" for node, message in sorted(nodes.silent.items()))
    return Plan((), plan.differences, None, SILENT_RETRY_S, f"no answer from {why}", plan.warnings)


def joined(errors: Sequence[TerminalError]) -> TerminalError | None:
    """Several reasons why something can't be reached as one: the first one's reason, everybody's message."""
    if not errors:
        return None
    messages = "; ".join(dict.fromkeys(error.message for error in errors))
    return TerminalError(messages, reason=errors[0].reason)

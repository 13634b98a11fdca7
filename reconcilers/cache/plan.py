"""Planners of Redis parameters, Redis users and Memcached settings. Pure.

desired and observed, in words:

    user       gone, absent → nothing          gone, there → DropUser          (`default` and our own login: blocked)
               wanted, absent → SetUser        wanted, differs → SetUser       (locking ourselves out: blocked)
    parameters equal → nothing                 differ → SetParameters, all in one; refused by the server → blocked
               equal but not in the file, `persist` → RewriteConfig            retired → nothing: values stay
    settings   equal → nothing                 differ → ChangeSettings         (only by a restart: blocked)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from reconcilers.cache import acl, memcached_settings, parameters
from reconcilers.cache.acl import Account, User
from reconcilers.cache.model import (
    DEFAULT_USER,
    Config,
    HeldConfig,
    HeldSettings,
    ObservedConfig,
    ObservedSettings,
    ObservedUser,
)
from reconcilers.cache.parameters import Verdict
from reconcilers.cache.steps import ChangeSettings, DropUser, NodeChanges, RewriteConfig, SetParameters, SetUser
from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Plan, Step, TerminalError
from reconcilers.planning import concluded, joined

# --- users -------------------------------------------------------------------------------------------------------------


def plan_user(external: ExternalId, desired: User | None, observed: ObservedUser | None, _now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        return CONVERGED if observed is None else _retired(external, observed)
    if observed is None:
        missing = Difference("/username", external.name, None)
        return Plan((SetUser(external, desired),), (missing,))
    nodes = observed.nodes
    found: list[Difference] = []
    stale: list[str] = []
    for node, held in sorted(nodes.held.items()):
        differences = list(_user_differences(desired, held, observed.wanted[node]))
        found += [Difference(nodes.path(path, node), wanted, have) for path, wanted, have in differences]
        stale += [node] if differences else []
    if not stale:
        return concluded(nodes, ())
    if observed.lockout is not None:
        blocked = TerminalError(
            f"the daemon itself logs in as {external.name} and would be locked out: {observed.lockout}",
            reason="SelfLockout",
        )
        return concluded(nodes, (), differences=found, blocked=blocked)
    kill = desired.kill_on_revoke and any(
        acl.revokes(held, observed.wanted[node]) for node in stale if (held := nodes.held[node]) is not None
    )
    return concluded(nodes, (SetUser(external, desired, tuple(stale), kill),), differences=found)


def _user_differences(desired: User, held: Account | None, wanted: Account) -> Iterable[tuple[str, Any, Any]]:
    if held is None:
        return [("/username", desired.name, None)]
    return acl.differing(held, wanted, passwords=desired.passwords is not None)


def _retired(external: ExternalId, observed: ObservedUser) -> Plan:
    if external.name == DEFAULT_USER:
        message = (
            "Redis can't do without its user default: declare it with enabled: false, or retire with deletion=retain"
        )
        return Plan(blocked=TerminalError(message, reason="DefaultUser"))
    if observed.lockout is not None:
        message = f"the daemon itself logs in as {external.name}: change the target's username first"
        return Plan(blocked=TerminalError(message, reason="SelfLockout"))
    holding = tuple(sorted(node for node, held in observed.nodes.held.items() if held is not None))
    return concluded(observed.nodes, (DropUser(external, holding),) if holding else ())


# --- parameters of redis -----------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Findings:
    """What the look at the nodes brought together."""

    changes: dict[str, dict[str, str]]
    differences: list[Difference]
    blocked: list[TerminalError]
    warnings: list[str]

    def steps_of(self) -> NodeChanges:
        return tuple((node, tuple(sorted(rows.items()))) for node, rows in sorted(self.changes.items()) if rows)


def plan_config(external: ExternalId, desired: Config | None, observed: ObservedConfig | None, _now: Instant) -> Plan:
    """See the table above. A retired declaration leaves the values: nobody knows what they were before."""
    if desired is None or observed is None:
        return CONVERGED
    nodes = observed.nodes
    found = _Findings({}, [], [], list(desired.notes))
    for node, held in sorted(nodes.held.items()):
        _compare_parameters(desired, node, held, observed, found)
    changes = found.steps_of()
    steps: list[Step] = [SetParameters(external, changes, desired.persist)] if changes else []
    # A node that is changed has its file written by the same transaction.
    unsaved = [
        node for node, held in nodes.held.items() if held.unsaved and held.has_file and not found.changes.get(node)
    ]
    if desired.persist and unsaved:
        steps.append(RewriteConfig(external, tuple(sorted(unsaved))))
        found.differences += [
            Difference(nodes.path("/persist", node), desired=True, observed=False) for node in unsaved
        ]
    return concluded(
        nodes, steps, differences=found.differences, blocked=joined(found.blocked), warnings=found.warnings
    )


def _compare_parameters(
    desired: Config, node: str, held: HeldConfig, observed: ObservedConfig, found: _Findings
) -> None:
    nodes = observed.nodes
    if desired.persist and not held.has_file:
        found.warnings.append(nodes.said("persist: the server was started without a configuration file", node))
    for name, wanted in desired.parameters.items():
        have, verdict = held.values.get(name), held.verdicts.get(name, Verdict())
        if have is None:
            message = nodes.said(f"the server doesn't know the parameter {name}", node)
            found.blocked.append(TerminalError(message, reason="UnknownParameter"))
            continue
        if parameters.holds(name, wanted, have):
            continue
        if verdict.held is not None and parameters.holds(name, verdict.held, have):
            found.warnings.append(nodes.said(f"{name}: the server holds {have} for {wanted}", node))
            continue
        path = nodes.path(f"/parameters/{name}", node)
        found.differences.append(Difference(path, wanted, parameters.relevant(name, wanted, have)))
        if verdict.reason is not None:
            found.blocked.append(TerminalError(nodes.said(verdict.message, node), reason=verdict.reason))
        else:
            found.changes.setdefault(node, {})[name] = wanted


# --- settings of memcached ---------------------------------------------------------------------------------------------


def plan_settings(
    external: ExternalId, desired: Mapping[str, str] | None, observed: ObservedSettings | None, _now: Instant
) -> Plan:
    """See the table above. A retired declaration leaves the values."""
    if desired is None or observed is None:
        return CONVERGED
    nodes = observed.nodes
    found = _Findings({}, [], [], [])
    for node, held in sorted(nodes.held.items()):
        _compare_settings(desired, node, held, observed, found)
        if node in found.changes:
            found.changes[node] = memcached_settings.completed(found.changes[node], desired, held.values)
    changes = found.steps_of()
    steps = [ChangeSettings(external, changes)] if changes else []
    return concluded(nodes, steps, differences=found.differences, blocked=joined(found.blocked))


def _compare_settings(
    desired: Mapping[str, str], node: str, held: HeldSettings, observed: ObservedSettings, found: _Findings
) -> None:
    nodes = observed.nodes
    for path, wanted in desired.items():
        have = held.values.get(path)
        if have == wanted:
            continue
        found.differences.append(Difference(nodes.path(path, node), wanted, have))
        error = _unreachable_setting(path, wanted, have, held.verdicts.get(path))
        if error is not None:
            found.blocked.append(TerminalError(nodes.said(error.message, node), reason=error.reason))
        else:
            found.changes.setdefault(node, {})[path] = wanted


def _unreachable_setting(path: str, wanted: str, have: str | None, verdict: Verdict | None) -> TerminalError | None:
    flag = memcached_settings.RESTART_ONLY.get(path)
    if flag is not None:
        message = f"{path} is {have} until the server is started with {flag.format(value=wanted)}"
        return TerminalError(message, reason="RestartRequired")
    if have is None:
        return TerminalError(f"the server doesn't know {path}", reason="UnknownParameter")
    if verdict is not None and verdict.reason is not None:
        return TerminalError(verdict.message, reason=verdict.reason)
    return None

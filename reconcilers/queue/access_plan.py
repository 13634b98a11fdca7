"""Planners of users, permissions and quotas. Pure.

desired and observed, in words:

    user    gone, there → what is ours goes: SetQuotas, ChangeAcls, and last DropCredential, so that a rest is still seen
            wanted → SetCredential when the mechanism, the iterations or the password's fingerprint differ (a hash can't be
            read, so the fingerprint of what was written last stands for it), DropCredential for other mechanisms,
            ChangeAcls and SetQuotas as far as they are declared
            the daemon's own login: nothing that would cut it off
    acl     ChangeAcls to exactly what is declared          quota   SetQuotas to exactly what is declared
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Plan, Step, TerminalError
from reconcilers.queue.access import (
    OWNED,
    Bindings,
    ObservedAcl,
    ObservedQuota,
    ObservedUser,
    Rates,
    User,
    principal_of,
)
from reconcilers.queue.access_steps import ChangeAcls, DropCredential, SetCredential, SetQuotas

SETTLE_S: Final = 0.15

# --- users -------------------------------------------------------------------------------------------------------------


def plan_user(external: ExternalId, desired: User | None, observed: ObservedUser | None, _now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        plan = CONVERGED if observed is None else _retired(external, observed)
    else:
        plan = _compared(external, desired, observed or ObservedUser())
        if observed is None:
            plan = replace(plan, differences=(Difference("/username", desired.name, None),))
    return plan if observed is None else _settled(plan, observed.settling)


def _compared(external: ExternalId, desired: User, observed: ObservedUser) -> Plan:
    parts = [
        *_credential(external, desired, observed),
        *_permissions(external, desired, observed),
        *_limits(external, desired, observed),
    ]
    steps = tuple(step for step, _ in parts)
    differences = tuple(difference for _, some in parts for difference in some)
    blocked = _locked_out(desired, observed, steps)
    remember = {OWNED: desired.owned}
    return Plan(() if blocked else steps, differences, blocked, remember=remember)


def _credential(external: ExternalId, desired: User, observed: ObservedUser) -> Iterator[tuple[Step, list[Difference]]]:
    found: list[Difference] = []
    held = observed.credentials.get(desired.mechanism)
    if held is None:
        found.append(Difference("/mechanism", desired.mechanism, sorted(observed.credentials)))
    elif held != desired.iterations:
        found.append(Difference("/iterations", desired.iterations, held))
    if observed.written != observed.wanted:
        found.append(Difference("/password", "as declared", "unknown" if observed.written is None else "another"))
    if found:
        yield SetCredential(external, desired.mechanism, desired.iterations, desired.password), found
    for mechanism in sorted(observed.credentials.keys() - {desired.mechanism}):
        yield DropCredential(external, mechanism), [Difference("/mechanism", desired.mechanism, mechanism)]


def _permissions(
    external: ExternalId, desired: User, observed: ObservedUser
) -> Iterator[tuple[Step, list[Difference]]]:
    if desired.acls is not None and desired.acls != observed.acls:
        step = _change(external, principal_of(desired.name), desired.acls, observed.acls)
        yield replace(step, owned=desired.owned), _acl_differences(desired.acls, observed.acls)


def _limits(external: ExternalId, desired: User, observed: ObservedUser) -> Iterator[tuple[Step, list[Difference]]]:
    if desired.quotas is not None and dict(desired.quotas) != dict(observed.quotas):
        step = _limit(external, f"user={desired.name}", desired.quotas, observed.quotas)
        yield replace(step, owned=desired.owned), _quota_differences(desired.quotas, observed.quotas)


def _retired(external: ExternalId, observed: ObservedUser) -> Plan:
    if observed.own is not None:
        message = f"the daemon itself logs in as {external.name}: change the target's username first"
        return Plan(blocked=TerminalError(message, reason="SelfLockout"))
    steps: list[Step] = []
    if "quotas" in observed.owned and observed.quotas:
        steps.append(_limit(external, f"user={external.name}", {}, observed.quotas))
    if "acls" in observed.owned and observed.acls:
        steps.append(_change(external, principal_of(external.name), frozenset(), observed.acls))
    steps += [DropCredential(external, mechanism) for mechanism in sorted(observed.credentials)]
    return Plan(tuple(steps))


def _locked_out(desired: User, observed: ObservedUser, steps: tuple[Step, ...]) -> TerminalError | None:
    """Why the daemon couldn't go on as this user."""
    own = observed.own
    if own is None:
        return None
    why = None
    if any(isinstance(step, DropCredential) and step.mechanism == own.mechanism for step in steps):
        why = f"the target logs in by {own.mechanism}"
    elif observed.wanted != own.fingerprint and any(
        isinstance(step, SetCredential) and step.mechanism == own.mechanism for step in steps
    ):
        why = "the target has another password: change that first"
    elif any(_cuts(step) for step in steps):
        why = "it would lose permissions"
    if why is None:
        return None
    message = f"the daemon itself logs in as {desired.name} and would be locked out: {why}"
    return TerminalError(message, reason="SelfLockout")


def _cuts(step: Step) -> bool:
    return isinstance(step, ChangeAcls) and (
        any(binding.permission == "allow" for binding in step.remove)
        or any(binding.permission == "deny" for binding in step.add)
    )


def _settled(plan: Plan, settling: str | None) -> Plan:
    if plan.converged or plan.blocked is not None or settling is None:
        return plan
    return Plan(requeue_after_s=SETTLE_S, wait_reason=settling)


# --- permissions and quotas by themselves ------------------------------------------------------------------------------


def plan_acl(external: ExternalId, desired: Bindings | None, observed: ObservedAcl | None, _now: Instant) -> Plan:
    """See the table above."""
    wanted, held = desired or frozenset(), frozenset() if observed is None else observed.acls
    if wanted == held:
        return CONVERGED
    step = _change(external, external.name, wanted, held)
    differences = () if desired is None else tuple(_acl_differences(wanted, held))
    if observed is not None and observed.own and _cuts(step):
        message = f"the daemon itself is {external.name} and would lose permissions"
        return Plan((), differences, TerminalError(message, reason="SelfLockout"))
    return _settled(Plan((step,), differences), None if observed is None else observed.settling)


def plan_quota(external: ExternalId, desired: Rates | None, observed: ObservedQuota | None, _now: Instant) -> Plan:
    """See the table above."""
    wanted, held = desired or {}, {} if observed is None else observed.quotas
    if dict(wanted) == dict(held):
        return CONVERGED
    step = _limit(external, external.name, wanted, held)
    differences = () if desired is None else tuple(_quota_differences(wanted, held))
    return _settled(Plan((step,), differences), None if observed is None else observed.settling)


def _change(external: ExternalId, principal: str, wanted: Bindings, held: Bindings) -> ChangeAcls:
    everything = bool(held) and not wanted
    return ChangeAcls(external, principal, tuple(sorted(wanted - held)), tuple(sorted(held - wanted)), everything)


def _limit(external: ExternalId, entity: str, wanted: Rates, held: Rates) -> SetQuotas:
    values: dict[str, float | None] = dict.fromkeys(held.keys() - wanted.keys())
    values |= {name: value for name, value in wanted.items() if held.get(name) != value}
    return SetQuotas(external, entity, tuple(sorted(values.items())))


def _acl_differences(wanted: Bindings, held: Bindings) -> list[Difference]:
    missing, more = sorted(map(str, wanted - held)), sorted(map(str, held - wanted))
    return [Difference("/acls", missing, more)]


def _quota_differences(wanted: Rates, held: Rates) -> list[Difference]:
    names = sorted(wanted.keys() | held.keys())
    return [
        Difference(f"/quotas/{name}", wanted.get(name), held.get(name))
        for name in names
        if wanted.get(name) != held.get(name)
    ]

"""Changes let in: by who makes them, where they belong, and how much a tenant may have.

Every write goes through here, whichever way it was asked for; a handler never appends by itself. Validation of values
comes before, and the fold decides afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

from controlplane.api import auth
from controlplane.api.call import Call
from controlplane.domain.access import Role, beyond, granted
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.fold import Verdict
from controlplane.domain.placing import at, place_of
from controlplane.domain.writes import Change
from controlplane.runtime.directory import overlap, stands
from schemas.access import ACCESS_KINDS, Grant, Share
from schemas.names import ACCESS, SYSTEM, Key, parse_key, timestamp

QUOTA_RETRY_S: Final = 60.0
"""Nobody knows when a tenant will have retired something."""


async def submit(
    call: Call[Any], changes: Sequence[Change], *, reason: str = "", request_id: str | None = None
) -> Verdict:
    """The verdict on the changes. Raises `Refused` when they aren't let in."""
    admit(call, changes)
    parts = call.parts
    quotas = parts.directory.quotas(call.tenant)
    parts.limits.take("writes", f"tenant {call.tenant}", quotas.writes_per_s, parts.clock.monotonic())
    return await parts.replica.submit(
        changes,
        actor=call.caller.actor,
        request_id=request_id or call.request_id,
        reason=reason,
        timeout_s=call.write_timeout_s,
        remember=call.may_be_repeated,
    )


def record(call: Call[Any], reason: str) -> dict[str, Any]:
    """What a change request of this call would say of itself: at, actor, reason, request_id."""
    at_ = timestamp(call.parts.clock.now())
    return {"at": at_, "actor": call.caller.actor, "reason": reason, "request_id": call.request_id}


def count_operation(call: Call[Any]) -> None:
    """Count what acts on a backend at once. Raises `Refused` (TooManyRequests) over the tenant's quota."""
    parts, per_s = call.parts, call.parts.directory.quotas(call.tenant).operations_per_s
    parts.limits.take("operations", f"tenant {call.tenant}", per_s, parts.clock.monotonic())


def hold_stream(call: Call[Any]) -> AbstractContextManager[None]:
    """Hold one of the streams that the caller's token may have open. Entering raises `Refused` (TooManyRequests)."""
    parts = call.parts
    return parts.limits.holding("streams", f"token {call.caller.actor}", parts.config.auth.max_streams)


def remembered(call: Call[Any], request_id: str | None = None) -> Verdict | None:
    """The verdict on an earlier request with this id, for those who could have made it. Raises `Refused`."""
    first = call.parts.replica.state.verdicts.get(request_id or call.request_id)
    if first is not None:
        _authorise(call, [*(done.key for done in first.outcomes), *(refusal.key for refusal in first.refusals)])
    return first


def admit(call: Call[Any], changes: Sequence[Change]) -> None:
    """Raise `Refused` (Forbidden, Invalid, Conflict, QuotaExceeded) unless all of the changes are let in."""
    _authorise(call, [change["key"] for change in changes])
    for change in changes:
        if _service(change["key"]) == ACCESS:
            _admit_access(call, parse_key(change["key"]), change)
        elif call.tenant == SYSTEM:
            raise _misplaced(parse_key(change["key"]), f"the tenant {SYSTEM} holds settings of {ACCESS} alone")
    _check_trespasses(call, changes)
    _check_quota(call, changes)


def _authorise(call: Call[Any], keys: Sequence[str]) -> None:
    foreign = next((key for key in keys if not key.startswith(f"{call.tenant}/")), None)
    if foreign is not None:
        raise Refused(Reason.FORBIDDEN, f"{foreign} isn't of tenant {call.tenant}")
    for service in sorted({_service(key) for key in keys}):
        auth.authorise(call.caller, Role.EDITOR, call.tenant, service)


def _service(key: str) -> str:
    return key.split("/")[1].partition(".")[0]


def _check_trespasses(call: Call[Any], changes: Sequence[Change]) -> None:
    """Looks at those alone that are on a target of two tenants: nearly nobody's are."""
    shared = call.parts.directory.shares_anything
    faults = []
    for change in changes:
        if change["op"] == "declare" and (shared or _names_another(call, change)):
            key = parse_key(change["key"])
            found = call.parts.trespasses(key, change["body"])
            faults += [Fault(f"/{key.reference}/value{one.path}", one.message) for one in found]
    if faults:
        raise Refused(Reason.INVALID, f"{faults[0].path}: {faults[0].message}", faults)


def _names_another(call: Call[Any], change: Change) -> bool:
    model = call.parts.kinds.get(change["key"].split("/")[1])
    return "/" in str(at(change["body"]["value"], place_of(model)))


def _admit_access(call: Call[Any], key: Key, change: Change) -> None:
    if not stands(key.tenant, key.setting_type):
        raise _misplaced(key, f"declare it in the tenant {SYSTEM}: it says what others may do")
    if change["op"] == "retire":
        if key.setting_type == "access.tenant":
            _check_empty(call, key.name)
    elif key.setting_type == "access.token":
        _check_token(call, key, change["body"]["value"])
    elif key.setting_type == "access.share":
        _check_share(call, key, ACCESS_KINDS[key.setting_type].model_validate(change["body"]["value"]))
    elif key.name == SYSTEM:
        raise _misplaced(key, f"the tenant {SYSTEM} is always there")


def _check_token(call: Call[Any], key: Key, value: Mapping[str, Any]) -> None:
    grants = [Grant.model_validate(grant) for grant in value["grants"]]
    foreign = [index for index, grant in enumerate(grants) if grant.tenants and key.tenant != SYSTEM]
    if foreign:
        message = f"a token of {key.tenant} is good for that tenant: leave it out, or declare the token in {SYSTEM}"
        faults = [Fault(f"/value/grants/{index}/tenants", message) for index in foreign]
        raise Refused(Reason.INVALID, f"{key.reference} would reach beyond its tenant", faults)
    more = beyond(call.caller, granted(grants, key.tenant))
    if more is not None:
        detail = f"{call.caller.actor} can't give {more.role.name.lower()} of {', '.join(more.services)} in "
        raise Refused(Reason.FORBIDDEN, f"{detail}{', '.join(more.tenants)}: nobody hands on more than they hold")


def _check_share(call: Call[Any], key: Key, share: Any) -> None:
    assert isinstance(share, Share)  # noqa: S101 - what its kind says
    for entry in call.parts.replica.state.entries.values():
        other = entry.body["value"]
        if (
            entry.key.startswith(f"{SYSTEM}/access.share/")
            and entry.key != str(key)
            and not entry.retiring
            and other["target"] == share.target
            and (overlap(other["prefix"], share.prefix) or other["tenant"] == share.tenant)
        ):
            detail = f"{parse_key(entry.key).reference} shares it with {other['tenant']} under {other['prefix']}"
            raise Refused(Reason.CONFLICT, detail, [Fault("/value/prefix", f"must not overlap: {detail}")])


def _check_empty(call: Call[Any], tenant: str) -> None:
    left = call.parts.directory.settings_in(tenant)
    if left:
        detail = f"tenant {tenant} has {left} settings: retire them first"
        raise Refused(Reason.CONFLICT, detail, [Fault(f"/{tenant}", detail)])


def _check_quota(call: Call[Any], changes: Sequence[Change]) -> None:
    most = call.parts.directory.quotas(call.tenant).settings
    if most is None:
        return
    entries = call.parts.replica.state.entries
    new = sum(change["op"] == "declare" and change["key"] not in entries for change in changes)
    there = call.parts.directory.settings_in(call.tenant)
    if new and there + new > most:
        detail = f"tenant {call.tenant} has {there} settings and may have {most}: retire some, or ask for more"
        raise Refused(Reason.QUOTA_EXCEEDED, detail, retry_after_s=QUOTA_RETRY_S)


def _misplaced(key: Key, detail: str) -> Refused:
    return Refused(Reason.INVALID, f"{key.reference} can't stand in tenant {key.tenant}: {detail}", [Fault("", detail)])

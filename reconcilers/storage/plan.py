"""The planner of buckets. Pure.

desired and observed, in words:

    gone, absent → nothing                   gone, empty → DropBucket
    gone, holds something → FreezeBucket, EmptyBucket (irreversible) again and again, DropBucket
    wanted, absent → CreateBucket, and every document that is declared
    wanted, there → each declared document that differs, one after the other: rules, tags and notifications of others stay
    what the server can't go back to → blocked: versioning off, object lock after the making, a lock's versioning suspended
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Plan, Step, TerminalError
from reconcilers.planning import joined
from reconcilers.storage import lifecycle, model, policies
from reconcilers.storage.model import FROZEN_BYTES, Bucket, HeldBucket, Versioning
from reconcilers.storage.plan_replication import plan_replication
from reconcilers.storage.steps import (
    CreateBucket,
    DropBucket,
    EmptyBucket,
    FreezeBucket,
    SetAccess,
    SetEncryption,
    SetLifecycle,
    SetNotifications,
    SetQuota,
    SetRetention,
    SetTags,
    SetVersioning,
)

Found = tuple[list[Step], list[Difference], list[TerminalError]]


def plan_bucket(external: ExternalId, desired: Bucket | None, observed: HeldBucket | None, _now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        return CONVERGED if observed is None else _retired(external, observed)
    steps: list[Step] = []
    differences: list[Difference] = []
    blocked: list[TerminalError] = []
    if observed is None:
        steps.append(CreateBucket(external, desired.object_lock))
        differences.append(Difference("/bucket", desired.name, None))
        made = Versioning("enabled") if desired.object_lock else Versioning()
        observed = HeldBucket(versioning=made, object_lock=desired.object_lock)
    for part in PARTS:
        found_steps, found_differences, found_blocked = part(external, desired, observed)
        steps += found_steps
        differences += found_differences
        blocked += found_blocked
    return Plan(tuple(steps), tuple(differences), joined(blocked), remember=_remembered(desired, observed))


def owned_parts(desired: Bucket) -> dict[str, tuple[str, ...]]:
    """The ids by which parts of shared documents are ours."""
    return {
        "rules": tuple(rule.id for rule in desired.rules or ()),
        "tags": tuple(key for key, _ in desired.tags or ()),
        "notifications": tuple(one.id for one in desired.notifications or ()),
        "replication": tuple(one.rule.id for one in desired.replication or ()),
    }


def _remembered(desired: Bucket, observed: HeldBucket) -> dict[str, str]:
    places = {one.rule.place for one in desired.replication or ()}
    remotes = [one.arn for one in observed.replication.remotes if one.place in places]
    found = model.remembered("remotes", remotes) if remotes else {}
    for part, ids in owned_parts(desired).items():
        found |= model.remembered(part, ids)
    return found


def _retired(external: ExternalId, observed: HeldBucket) -> Plan:
    contents = observed.contents
    if contents is None or contents.first is None:
        return Plan((DropBucket(external),))
    frozen = observed.quota_bytes in (None, FROZEN_BYTES) and observed.access == policies.frozen(external.name)
    freeze = () if frozen else (FreezeBucket(external),)
    return Plan((*freeze, EmptyBucket(external, contents.first)))


def _nothing() -> Found:
    return [], [], []


def _changed(step: Step, *differences: Difference) -> Found:
    return [step], list(differences), []


def _impossible(difference: Difference, reason: str, message: str) -> Found:
    return [], [difference], [TerminalError(message, reason=reason)]


# --- documents that are ours as a whole ----------------------------------------------------------------------------------


def _object_lock(_external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    if not desired.object_lock or observed.object_lock:
        return _nothing()
    message = f"{desired.name} was made without object_lock, which can't be added: make another bucket and copy"
    return _impossible(Difference("/object_lock", desired=True, observed=False), "ObjectLockImpossible", message)


def _versioning(external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    wanted, have = desired.versioning, observed.versioning
    if wanted is None or wanted == have:
        return _nothing()
    shown, seen = wanted.shown(), have.shown()
    names = [
        name for name in ("versioning", "excluded_prefixes", "exclude_folders") if shown.get(name) != seen.get(name)
    ]
    differences = [Difference(f"/{name}", shown.get(name), seen.get(name)) for name in names]
    if wanted.status == "off":
        message = f"versioning of {desired.name} is {have.status}: it can be suspended, but never be off again"
        return [], differences, [TerminalError(message, reason="VersioningStays")]
    if observed.object_lock and wanted.status != "enabled":
        message = f"{desired.name} has an object lock, so its versioning can't be suspended"
        return [], differences, [TerminalError(message, reason="LockNeedsVersioning")]
    return _changed(SetVersioning(external, wanted), *differences)


def _retention(external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    wanted, have = desired.retention, observed.retention
    if wanted is None or wanted == have or not observed.object_lock:
        return _nothing()
    difference = Difference("/retention", wanted.shown(), None if have is None else have.shown())
    return _changed(SetRetention(external, wanted), difference)


def _encryption(external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    wanted = desired.encryption
    if wanted is None or wanted == observed.encryption:
        return _nothing()
    return _changed(SetEncryption(external, wanted), Difference("/encryption", wanted, observed.encryption))


def _quota(external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    wanted, have = desired.quota_bytes, observed.quota_bytes
    if wanted is None or wanted == have:
        return _nothing()
    difference = Difference("/quota_bytes", wanted, have)
    if have is None:
        return _impossible(difference, "Unsupported", "quota_bytes needs a MinIO whose admin API we may use")
    return _changed(SetQuota(external, wanted), difference)


def _access(external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    wanted, have = desired.access, observed.access
    if wanted is None or wanted == have:
        return _nothing()
    return _changed(SetAccess(external, wanted), Difference("/access", wanted.document(), have.document()))


# --- documents that have parts of others ---------------------------------------------------------------------------------


def _tags(external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    if desired.tags is None:
        return _nothing()
    wanted, have = dict(desired.tags), dict(observed.tags)
    gone = _gone(observed, "tags", wanted, have)
    differences = [
        Difference(f"/tags/{key}", value, have.get(key)) for key, value in wanted.items() if have.get(key) != value
    ]
    differences += [Difference(f"/tags/{key}", None, have[key]) for key in gone]
    if not differences:
        return _nothing()
    kept = {key: value for key, value in have.items() if key not in gone}
    return _changed(SetTags(external, tuple(sorted((kept | wanted).items())), tuple(wanted)), *differences)


def _lifecycle(external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    if desired.rules is None:
        return _nothing()
    wanted, have = {rule.id: rule for rule in desired.rules}, observed.rules
    changed = [name for name, rule in wanted.items() if have.rules.get(name) != rule]
    gone = _gone(observed, "rules", wanted, have.rules)
    if not changed and not gone:
        return _nothing()
    differences = [_differs("/lifecycle", name, wanted[name].shown(), have.rules.get(name)) for name in changed]
    differences += [_differs("/lifecycle", name, None, have.rules[name]) for name in gone]
    texts = _merged(have.texts, {name: lifecycle.text(wanted[name]) for name in changed}, gone)
    expiring = tuple((name, observed.expiring[name]) for name in changed if name in observed.expiring)
    step = SetLifecycle(external, texts, tuple(wanted), tuple(changed), tuple(gone), expiring)
    return _changed(step, *differences)


def _notifications(external: ExternalId, desired: Bucket, observed: HeldBucket) -> Found:
    if desired.notifications is None:
        return _nothing()
    wanted, have = {one.id: one for one in desired.notifications}, observed.notifications
    changed = [name for name, one in wanted.items() if have.get(name) != one]
    gone = _gone(observed, "notifications", wanted, have)
    if not changed and not gone:
        return _nothing()
    differences = [_differs("/notifications", name, wanted[name].shown(), have.get(name)) for name in changed]
    differences += [_differs("/notifications", name, None, have[name]) for name in gone]
    texts = _merged(
        observed.notification_texts, {name: model.notification_text(wanted[name]) for name in changed}, gone
    )
    return _changed(SetNotifications(external, texts, tuple(wanted)), *differences)


def _gone(observed: HeldBucket, part: str, wanted: Mapping[str, Any], have: Mapping[str, Any]) -> list[str]:
    """Ids that were ours, are there, and are declared no more."""
    former = observed.former.get(part, frozenset())
    return [name for name in have if name in former and name not in wanted]


def _differs(path: str, name: str, wanted: Any, have: Any) -> Difference:
    return Difference(f"{path}/{name}", wanted, None if have is None else have.shown())


def _merged(held: Mapping[str, str], changed: Mapping[str, str], gone: Iterable[str]) -> tuple[str, ...]:
    """The parts in the server's order, ours in their new form, new ones at the end."""
    dropped = set(gone)
    kept = {name: changed.get(name, text) for name, text in held.items() if name not in dropped}
    return tuple({**kept, **changed}.values())


PARTS: Final[tuple[Callable[[ExternalId, Bucket, HeldBucket], Found], ...]] = (
    _object_lock,
    _versioning,
    _retention,
    _encryption,
    _tags,
    _quota,
    _access,
    _notifications,
    _lifecycle,
    plan_replication,
)
"""In the order in which they are put: nothing expires before it has versions, nothing is public before it has a quota."""

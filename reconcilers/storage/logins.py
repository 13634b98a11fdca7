"""Policies, users, groups and access keys: what is declared, what is observed, and the planners. Pure.

desired and observed, in words:

    policy      gone → DropPolicy                        wanted, differs or absent → PutPolicy
    user        gone → DropUser                          absent, or another secret → PutUser, which sets the status too
                status differs → SetUserStatus           policies, groups differ → SetUserPolicies, SetUserGroups
    group       gone → DropGroup                         members differ → PutMembers, which makes it too
                status, policies differ → SetGroupStatus, SetGroupPolicies
    access key  gone → DropAccessKey                     absent → CreateAccessKey, differs → UpdateAccessKey, whole
                belongs to another user → blocked

What somebody is to get must exist: a policy, group or user that is named and isn't there is waited for, or, as long as
it isn't known, refused by the server for now.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Plan, Step, TerminalError
from reconcilers.storage import policies
from reconcilers.storage.policies import Policy
from schemas import storage
from schemas.secret import SecretRef

POLICY: Final = "storage.policy"
USER: Final = "storage.user"
GROUP: Final = "storage.group"
ACCESS_KEY: Final = "storage.access_key"
WAIT_S: Final = 2.0
LEAST_LIFE_S: Final = 900.0
"""An access key is made for at least so long."""


# --- values ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class User:
    """What is declared. None: not owned."""

    name: str
    secret: SecretRef
    enabled: bool
    policies: frozenset[str] | None
    groups: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class HeldUser:
    """What the server holds. `current`: its secret is the declared one. `missing_*`: what was declared and isn't there."""

    enabled: bool
    current: bool
    policies: frozenset[str]
    groups: frozenset[str]
    missing_policies: frozenset[str] = frozenset()
    missing_groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Group:
    """What is declared. None: not owned."""

    name: str
    enabled: bool
    members: frozenset[str] | None
    policies: frozenset[str] | None


@dataclass(frozen=True, slots=True)
class HeldGroup:
    """What the server holds."""

    enabled: bool
    members: frozenset[str]
    policies: frozenset[str]
    missing_policies: frozenset[str] = frozenset()
    missing_members: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Key:
    """A declared access key. `policy` None: all rights of its user. `expires_at`: Unix seconds; None: not owned."""

    name: str
    user: str
    secret: SecretRef
    policy: Policy | None
    enabled: bool
    expires_at: int | None
    description: str | None


@dataclass(frozen=True, slots=True)
class HeldKey:
    """What the server holds."""

    user: str
    current: bool
    policy: Policy | None
    enabled: bool
    expires_at: int | None
    description: str


def policy_name(name: str, value: storage.Policy) -> str:
    """The policy's name on the server."""
    return value.policy or name


def declared_policy(_name: str, value: storage.Policy) -> Policy:
    """The document's canonical form."""
    return policies.canonical(value.document)


def user_name(name: str, value: storage.User) -> str:
    """The name by which the user logs in."""
    return value.access_key or name


def declared_user(name: str, value: storage.User) -> User:
    """The declaration's canonical form."""
    return User(user_name(name, value), value.secret_key, value.enabled, _set(value.policies), _set(value.groups))


def group_name(name: str, value: storage.Group) -> str:
    """The group's name on the server."""
    return value.group or name


def declared_group(name: str, value: storage.Group) -> Group:
    """The declaration's canonical form."""
    return Group(group_name(name, value), value.enabled, _set(value.members), _set(value.policies))


def key_name(name: str, value: storage.AccessKey) -> str:
    """The name by which the program logs in."""
    return value.access_key or name


def declared_key(name: str, value: storage.AccessKey) -> Key:
    """The declaration's canonical form."""
    policy = None if value.policy is None else policies.canonical(value.policy)
    expires_at = None if value.expires_at is None else int(value.expires_at.timestamp())
    return Key(
        key_name(name, value), value.user, value.secret_key, policy, value.enabled, expires_at, value.description
    )


def _set(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


# --- steps -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PutPolicy(Step):
    """Make or replace the policy."""

    policy: Policy

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "document": self.policy.document()}


@dataclass(frozen=True, slots=True)
class DropPolicy(Step):
    """Remove the policy; the server refuses while somebody has it."""


@dataclass(frozen=True, slots=True)
class PutUser(Step):
    """Make the user, or give it its secret anew; the status goes with it, or a disabled user would be enabled."""

    secret: SecretRef
    enabled: bool

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "secret": str(self.secret), "enabled": self.enabled}


@dataclass(frozen=True, slots=True)
class SetUserStatus(Step):
    """Let the user in, or keep it out."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class SetUserPolicies(Step):
    """Exactly these."""

    policies: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "policies": list(self.policies)}


@dataclass(frozen=True, slots=True)
class SetUserGroups(Step):
    """Join and leave groups."""

    join: tuple[str, ...]
    leave: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "join": list(self.join), "leave": list(self.leave)}


@dataclass(frozen=True, slots=True)
class DropUser(Step):
    """Remove the user, and its access keys with it."""


@dataclass(frozen=True, slots=True)
class PutMembers(Step):
    """Make the group if need be, add and remove members."""

    add: tuple[str, ...]
    remove: tuple[str, ...] = ()

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "add": list(self.add), "remove": list(self.remove)}


@dataclass(frozen=True, slots=True)
class SetGroupStatus(Step):
    """Let the group's policies count, or not."""

    enabled: bool


@dataclass(frozen=True, slots=True)
class SetGroupPolicies(Step):
    """Exactly these."""

    policies: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "policies": list(self.policies)}


@dataclass(frozen=True, slots=True)
class DropGroup(Step):
    """Remove policies, members and the group."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreateAccessKey(Step):
    """Make the key."""

    key: Key

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "user": self.key.user, "secret": str(self.key.secret)}


@dataclass(frozen=True, slots=True)
class UpdateAccessKey(Step):
    """Put everything of the key: an update without its policy would give it all rights of its user."""

    key: Key

    def details(self) -> dict[str, Any]:
        """See the contract."""
        policy = None if self.key.policy is None else self.key.policy.document()
        return {"external": self.external.name, "enabled": self.key.enabled, "policy": policy}


@dataclass(frozen=True, slots=True)
class DropAccessKey(Step):
    """Remove the key."""


# --- planners ----------------------------------------------------------------------------------------------------------


def plan_policy(external: ExternalId, desired: Policy | None, observed: Policy | None, _now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        return CONVERGED if observed is None else Plan((DropPolicy(external),))
    if desired == observed:
        return CONVERGED
    have = None if observed is None else observed.document()
    return Plan((PutPolicy(external, desired),), (Difference("/document", desired.document(), have),))


def plan_user(external: ExternalId, desired: User | None, observed: HeldUser | None, _now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        return CONVERGED if observed is None else Plan((DropUser(external),))
    put = PutUser(external, desired.secret, desired.enabled)
    if observed is None:
        return Plan((put, *_given(external, desired)), (Difference("/access_key", desired.name, None),))
    steps: list[Step] = []
    differences = []
    if not observed.current:
        steps.append(put)
        differences.append(Difference("/secret_key", str(desired.secret), "another one"))
    if observed.enabled != desired.enabled:
        steps += [SetUserStatus(external, desired.enabled)] if observed.current else []
        differences.append(Difference("/enabled", desired.enabled, observed.enabled))
    waits = []
    if desired.groups is not None and desired.groups != observed.groups:
        join, leave = desired.groups - observed.groups - observed.missing_groups, observed.groups - desired.groups
        steps += [SetUserGroups(external, _tuple(join), _tuple(leave))] if join or leave else []
        differences.append(Difference("/groups", sorted(desired.groups), sorted(observed.groups)))
        waits += [f"group {name}" for name in sorted(observed.missing_groups)]
    if desired.policies is not None and desired.policies != observed.policies:
        steps += [] if observed.missing_policies else [SetUserPolicies(external, _tuple(desired.policies))]
        differences.append(Difference("/policies", sorted(desired.policies), sorted(observed.policies)))
        waits += [f"policy {name}" for name in sorted(observed.missing_policies)]
    return _waiting(steps, differences, waits)


def _given(external: ExternalId, desired: User) -> tuple[Step, ...]:
    """What a user that was just made gets."""
    groups = (SetUserGroups(external, _tuple(desired.groups), ()),) if desired.groups else ()
    return groups + ((SetUserPolicies(external, _tuple(desired.policies)),) if desired.policies else ())


def plan_group(external: ExternalId, desired: Group | None, observed: HeldGroup | None, _now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        return CONVERGED if observed is None else Plan((DropGroup(external, _tuple(observed.members)),))
    if observed is None:
        made: list[Step] = [PutMembers(external, _tuple(desired.members or ()))]
        made += [SetGroupPolicies(external, _tuple(desired.policies))] if desired.policies else []
        made += [] if desired.enabled else [SetGroupStatus(external, enabled=False)]
        return Plan(tuple(made), (Difference("/group", desired.name, None),))
    steps: list[Step] = []
    differences = []
    waits = []
    if desired.members is not None and desired.members != observed.members:
        add, remove = desired.members - observed.members - observed.missing_members, observed.members - desired.members
        steps += [PutMembers(external, _tuple(add), _tuple(remove))] if add or remove else []
        differences.append(Difference("/members", sorted(desired.members), sorted(observed.members)))
        waits += [f"user {name}" for name in sorted(observed.missing_members)]
    if desired.policies is not None and desired.policies != observed.policies:
        steps += [] if observed.missing_policies else [SetGroupPolicies(external, _tuple(desired.policies))]
        differences.append(Difference("/policies", sorted(desired.policies), sorted(observed.policies)))
        waits += [f"policy {name}" for name in sorted(observed.missing_policies)]
    if desired.enabled != observed.enabled:
        steps.append(SetGroupStatus(external, desired.enabled))
        differences.append(Difference("/enabled", desired.enabled, observed.enabled))
    return _waiting(steps, differences, waits)


def plan_key(external: ExternalId, desired: Key | None, observed: HeldKey | None, now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        return CONVERGED if observed is None else Plan((DropAccessKey(external),))
    if observed is None:
        return _made(external, desired, now)
    if observed.user != desired.user:
        message = f"{desired.name} is an access key of {observed.user}: a key stays with its user, declare another one"
        blocked = TerminalError(message, reason="KeyOfAnother")
        return Plan((), (Difference("/user", desired.user, observed.user),), blocked)
    differences = _key_differences(desired, observed)
    return Plan((UpdateAccessKey(external, desired),), tuple(differences)) if differences else CONVERGED


def _made(external: ExternalId, desired: Key, now: Instant) -> Plan:
    difference = Difference("/access_key", desired.name, None)
    if desired.expires_at is not None and desired.expires_at < now + LEAST_LIFE_S:
        blocked = TerminalError(f"{desired.name} would expire within 15 minutes, or has expired", reason="Expired")
        return Plan((), (difference,), blocked)
    return Plan((CreateAccessKey(external, desired),), (difference,))


def _key_differences(desired: Key, observed: HeldKey) -> list[Difference]:
    found = [] if observed.current else [Difference("/secret_key", str(desired.secret), "another one")]
    if desired.policy != observed.policy:
        shown = [None if policy is None else policy.document() for policy in (desired.policy, observed.policy)]
        found.append(Difference("/policy", *shown))
    rows = (
        ("/enabled", desired.enabled, observed.enabled),
        ("/expires_at", desired.expires_at, observed.expires_at),
        ("/description", desired.description, observed.description),
    )
    return found + [Difference(path, want, have) for path, want, have in rows if want is not None and want != have]


def _waiting(steps: list[Step], differences: list[Difference], waits: list[str]) -> Plan:
    """What is to be done, and when nothing is left, what is waited for."""
    if steps or not waits:
        return Plan(tuple(steps), tuple(differences))
    return Plan((), tuple(differences), None, WAIT_S, f"waits for {', '.join(waits)}")


def _tuple(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))

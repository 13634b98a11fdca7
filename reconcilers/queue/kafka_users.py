"""Users, permissions and quotas over the administration client. Runs in the client's thread; every reply is raw.

Kafka 4.3.1: one request changes one credential of a user at most, so two mechanisms are two steps. A thousand exact filters
take ten times as long to delete bindings as one filter for the principal. Quotas have no call in kafka-python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from reconcilers.contract import SUCCEEDED, BackendError, Discovered, Outcome, Secrets, Step, TransientError
from reconcilers.discovery import matches
from reconcilers.queue import discovered
from reconcilers.queue.access import (
    ACL,
    DEFAULT,
    OWNED,
    PASSWORD,
    QUOTA,
    USER,
    Binding,
    Bindings,
    ObservedAcl,
    ObservedQuota,
    ObservedUser,
    Own,
    Rates,
    User,
    entity_parts,
    principal_of,
)
from reconcilers.queue.access_steps import ChangeAcls, DropCredential, SetCredential, SetQuotas
from reconcilers.queue.admin import ended, messages, refusal, scram, send
from reconcilers.queue.own import Selves, throttle
from reconcilers.queue.settling import Settling

MECHANISMS: Final = {1: "SCRAM-SHA-256", 2: "SCRAM-SHA-512"}
NO_SUCH_USER: Final = 91
SECURITY_DISABLED: Final = 54
ANY: Final = 1
RESOURCES: Final = {2: "topic", 3: "group", 4: "cluster", 5: "transactional_id", 6: "delegation_token", 7: "user"}
PATTERNS: Final = {3: "literal", 4: "prefixed"}
PERMISSIONS: Final = {2: "deny", 3: "allow"}
ACL_OPERATIONS: Final = {
    2: "all",
    3: "read",
    4: "write",
    5: "create",
    6: "delete",
    7: "alter",
    8: "describe",
    9: "cluster_action",
    10: "describe_configs",
    11: "alter_configs",
    12: "idempotent_write",
    13: "create_tokens",
    14: "describe_tokens",
}

Check = Callable[[], None]
SeenT = TypeVar("SeenT", ObservedUser, ObservedAcl, ObservedQuota)


class Users:
    """The users, permissions and quotas of one cluster. Of one thread at a time."""

    def __init__(
        self, secrets: Secrets, settling: Settling, own: tuple[str, Own], selves: Callable[[], Selves]
    ) -> None:
        """`own`: the user that the daemon itself logs in as. `selves`: see there; may take a while."""
        self._secrets = secrets
        self._settling = settling
        self._own = own
        self._selves = selves

    # --- looking -------------------------------------------------------------------------------------------------------

    def observe_users(
        self, client: Any, wanted: Mapping[str, User | None]
    ) -> dict[str, ObservedUser] | dict[str, ObservedUser | BackendError]:
        """User → what is there of it, or why it isn't touched."""
        credentials = credentials_of(client, list(wanted))
        held = bindings_of(client, [principal_of(name) for name in wanted])
        quotas = all_quotas(client)
        seen = {
            name: ObservedUser(
                credentials.get(name, {}),
                held.get(principal_of(name), frozenset()),
                quotas.get(f"user={name}", {}),
                None if desired is None else self._secrets.fingerprint(self._secrets.reveal(desired.password)),
                self._own[1] if self._own[0] == name else None,
            )
            for name, desired in wanted.items()
        }
        limits = {
            f"user={name}": one.quotas for name, one in wanted.items() if one is not None and one.quotas is not None
        }
        refused = {entity.removeprefix("user="): why for entity, why in self._throttled(quotas, limits).items()}
        return self._there(USER, seen, lambda one: one.credentials) | refused

    def observe_acls(self, client: Any, wanted: Iterable[str]) -> dict[str, ObservedAcl]:
        """Principal → its permissions."""
        names = list(wanted)
        held = bindings_of(client, names)
        own = principal_of(self._own[0])
        seen = {name: ObservedAcl(held.get(name, frozenset()), own=name == own) for name in names}
        return self._there(ACL, seen, lambda one: one.acls)

    def observe_quotas(
        self, client: Any, wanted: Mapping[str, Rates | None]
    ) -> dict[str, ObservedQuota] | dict[str, ObservedQuota | BackendError]:
        """Entity → its quotas, or why they aren't touched."""
        quotas = all_quotas(client)
        seen = {name: ObservedQuota(quotas.get(name, {})) for name in wanted}
        refused = self._throttled(quotas, {entity: limits or {} for entity, limits in wanted.items()})
        return self._there(QUOTA, seen, lambda one: one.quotas) | refused

    def _throttled(self, held: Mapping[str, Rates], wanted: Mapping[str, Rates]) -> dict[str, BackendError]:
        selves = self._selves() if wanted else Selves(frozenset())
        judged = ((entity, throttle(selves, held, entity, limits)) for entity, limits in wanted.items())
        return {entity: why for entity, why in judged if why is not None}

    def _there(self, kind: str, seen: Mapping[str, SeenT], holds: Callable[[SeenT], Any]) -> dict[str, SeenT]:
        """Those that hold something, or wait for what we did to be shown."""
        found = {}
        for name, one in seen.items():
            settling = self._settling.look(kind, name, one)
            if holds(one) or settling is not None:
                found[name] = replace(one, settling=settling)
        return found

    def discover(self, client: Any, setting_type: str, match: str) -> list[Discovered]:
        """What exists of users, permissions or limits."""
        credentials = {name: one for name, one in credentials_of(client, None).items() if one}
        held = bindings_of(client, None) if setting_type != QUOTA else {}
        limits = all_quotas(client) if setting_type != ACL else {}
        if setting_type == USER:
            meant = {n: one for n, one in credentials.items() if matches(n, match, reserved=n == self._own[0])}
            return discovered.users(meant, held, limits)
        if setting_type == ACL:
            return [discovered.acl(name, held[name]) for name in discovered.others(held, credentials, match)]
        return [discovered.quota(name, limits[name]) for name in discovered.others(limits, credentials, match)]

    # --- steps ---------------------------------------------------------------------------------------------------------

    def set_credentials(self, client: Any, steps: Sequence[SetCredential], check: Check) -> list[Outcome]:
        """New passwords. The salt is new each time, so nothing can be compared afterwards."""
        made = [
            scram().UserScramCredentialUpsertion(
                step.external.name, step.mechanism, self._secrets.reveal(step.password), step.iterations
            )
            for step in steps
        ]
        rows = [(one.user, int(one.mechanism), one.iterations, one.salt, one.salted_password) for one in made]
        check()
        reply = send(client, messages().AlterUserScramCredentialsRequest(deletions=[], upsertions=rows))
        errors = {row.user: refusal(row.error_code, row.error_message, row.user) for row in reply.results}
        return ended(steps, lambda step: errors[step.external.name], self._set)

    def _set(self, step: SetCredential) -> Outcome:
        self._expect(step, PASSWORD, _let_in(step.mechanism, step.iterations))
        return replace(SUCCEEDED, remember={PASSWORD: self._secrets.fingerprint(self._secrets.reveal(step.password))})

    def drop_credentials(self, client: Any, steps: Sequence[DropCredential], check: Check) -> list[Outcome]:
        """One that is gone already is what is wanted."""
        numbers = {name: number for number, name in MECHANISMS.items()}
        rows = [(step.external.name, numbers[step.mechanism]) for step in steps]
        check()
        reply = send(client, messages().AlterUserScramCredentialsRequest(deletions=rows, upsertions=[]))
        errors = {row.user: refusal(row.error_code, row.error_message, row.user) for row in reply.results}
        gone = {row.user for row in reply.results if row.error_code == NO_SUCH_USER}
        return ended(
            steps, lambda step: errors[step.external.name] if step.external.name not in gone else None, self._dropped
        )

    def _dropped(self, step: DropCredential) -> Outcome:
        self._expect(step, step.mechanism, _locked(step.mechanism))
        return SUCCEEDED

    def change_acls(self, client: Any, steps: Sequence[ChangeAcls], check: Check) -> list[Outcome]:
        """Give, then take. Each binding may fail by itself; the step fails with the first that does."""
        errors: dict[int, BackendError] = {}
        given = [(index, binding) for index, step in enumerate(steps) for binding in step.add]
        if given:
            check()
            rows = [_creation(binding) for _, binding in given]
            reply = send(client, messages().CreateAclsRequest(creations=rows))
            _note(errors, given, reply.results)
        filters: list[tuple[int, Any]] = []
        every = messages().DeleteAclsRequest.DeleteAclsFilter
        for index, step in enumerate(steps):
            filters += [
                (index, row)
                for row in ([every(**_whole(step.principal))] if step.everything else map(_filter, step.remove))
            ]
        if filters:
            check()
            reply = send(client, messages().DeleteAclsRequest(filters=[row for _, row in filters]))
            _note(errors, filters, reply.filter_results)
        wrong = dict(zip(steps, map(errors.get, range(len(steps))), strict=True))
        return ended(steps, wrong.__getitem__, self._permitted)

    def _permitted(self, step: ChangeAcls) -> Outcome:
        self._expect(step, "permissions", _permitted(frozenset(step.add), frozenset(step.remove)))
        return _remembering(step.owned)

    def set_quotas(self, client: Any, steps: Sequence[SetQuotas], check: Check) -> list[Outcome]:
        """Set and remove; both may be repeated."""
        entry = messages().AlterClientQuotasRequest.EntryData
        rows = [
            entry(
                entity=[
                    entry.EntityData(entity_type=kind, entity_name=None if name == DEFAULT else name)
                    for kind, name in entity_parts(step.entity).items()
                ],
                ops=[entry.OpData(key=name, value=value or 0.0, remove=value is None) for name, value in step.values],
            )
            for step in steps
        ]
        check()
        reply = send(client, messages().AlterClientQuotasRequest(entries=rows, validate_only=False))
        errors = {
            _entity(row.entity): refusal(row.error_code, row.error_message, _entity(row.entity))
            for row in reply.entries
        }
        return ended(steps, lambda step: errors[step.entity], self._limited)

    def _limited(self, step: SetQuotas) -> Outcome:
        self._expect(step, "quotas", _limited(dict(step.values)))
        return _remembering(step.owned)

    def _expect(self, step: Step, part: str, shown: Callable[[Any], bool]) -> None:
        self._settling.expect(*step.external, part, shown)


def _remembering(owned: str | None) -> Outcome:
    return SUCCEEDED if owned is None else replace(SUCCEEDED, remember={OWNED: owned})


# --- what is to be shown -------------------------------------------------------------------------------------------------


def _let_in(mechanism: str, iterations: int) -> Callable[[Any], bool]:
    return lambda seen: seen is not None and seen.credentials.get(mechanism) == iterations


def _locked(mechanism: str) -> Callable[[Any], bool]:
    return lambda seen: seen is None or mechanism not in seen.credentials


def _permitted(added: Bindings, removed: Bindings) -> Callable[[Any], bool]:
    return lambda seen: added <= (held := seen.acls if seen is not None else frozenset()) and not removed & held


def _limited(values: Mapping[str, float | None]) -> Callable[[Any], bool]:
    def shown(seen: Any) -> bool:
        held = seen.quotas if seen is not None else {}
        return all(held.get(name) == value for name, value in values.items())

    return shown


# --- credentials ---------------------------------------------------------------------------------------------------------


def credentials_of(client: Any, users: Sequence[str] | None) -> dict[str, dict[str, int]]:
    """User → mechanism → iterations; None: of all."""
    rows = None if users is None else [(user,) for user in users]
    reply = send(client, messages().DescribeUserScramCredentialsRequest(users=rows))
    error = refusal(reply.error_code, reply.error_message, "users")
    if error is not None:
        raise error
    return {
        row.user: {
            MECHANISMS[one.mechanism]: one.iterations for one in row.credential_infos if one.mechanism in MECHANISMS
        }
        for row in reply.results
        if row.error_code == 0
    }


# --- permissions ---------------------------------------------------------------------------------------------------------


def bindings_of(client: Any, principals: Sequence[str] | None) -> dict[str, Bindings]:
    """Principal → its permissions; None: of all. A cluster without an authorizer has none."""
    alone = principals[0] if principals is not None and len(principals) == 1 else None
    request = messages().DescribeAclsRequest(**_whole(alone), min_version=1)
    reply = send(client, request)
    if reply.error_code == SECURITY_DISABLED:
        return {}
    error = refusal(reply.error_code, reply.error_message, "permissions")
    if error is not None:
        raise error
    found: dict[str, set[Binding]] = {}
    for resource in reply.resources:
        for acl in resource.acls:
            binding = Binding(
                acl.principal,
                acl.host,
                ACL_OPERATIONS.get(acl.operation, str(acl.operation)),
                PERMISSIONS[acl.permission_type],
                RESOURCES.get(resource.resource_type, str(resource.resource_type)),
                resource.resource_name,
                PATTERNS[resource.pattern_type],
            )
            found.setdefault(acl.principal, set()).add(binding)
    return {principal: frozenset(some) for principal, some in found.items()}


def _number(of: Mapping[int, str], word: str) -> int:
    return next((number for number, name in of.items() if name == word), 0) or int(word)


def _creation(binding: Binding) -> Any:
    return messages().CreateAclsRequest.AclCreation(
        resource_type=_number(RESOURCES, binding.resource),
        resource_name=binding.name,
        resource_pattern_type=_number(PATTERNS, binding.pattern),
        principal=binding.principal,
        host=binding.host,
        operation=_number(ACL_OPERATIONS, binding.operation),
        permission_type=_number(PERMISSIONS, binding.permission),
    )


def _filter(binding: Binding) -> Any:
    """Matches this very binding and nothing else."""
    return messages().DeleteAclsRequest.DeleteAclsFilter(
        resource_type_filter=_number(RESOURCES, binding.resource),
        resource_name_filter=binding.name,
        pattern_type_filter=_number(PATTERNS, binding.pattern),
        principal_filter=binding.principal,
        host_filter=binding.host,
        operation=_number(ACL_OPERATIONS, binding.operation),
        permission_type=_number(PERMISSIONS, binding.permission),
    )


def _whole(principal: str | None) -> dict[str, Any]:
    """Fields of a filter that matches everything that the principal has; None: everything."""
    return {
        "resource_type_filter": ANY,
        "resource_name_filter": None,
        "pattern_type_filter": ANY,
        "principal_filter": principal,
        "host_filter": None,
        "operation": ANY,
        "permission_type": ANY,
    }


def _note(errors: dict[int, BackendError], asked: Sequence[tuple[int, Any]], results: Sequence[Any]) -> None:
    """Errors by the step that they belong to; of several the first."""
    for (index, row), result in zip(asked, results, strict=True):
        what = str(row) if isinstance(row, Binding) else "permissions"
        error = refusal(result.error_code, result.error_message, what)
        if error is not None:
            errors.setdefault(index, error)


# --- quotas --------------------------------------------------------------------------------------------------------------


def all_quotas(client: Any) -> dict[str, dict[str, float]]:
    """Entity → key → value."""
    reply = send(client, messages().DescribeClientQuotasRequest(components=[], strict=False))
    error = refusal(reply.error_code, reply.error_message, "quotas")
    if error is not None:
        raise error
    if reply.entries is None:
        msg = "the cluster gave no quotas"
        raise TransientError(msg)
    return {_entity(row.entity): {one.key: one.value for one in row.values} for row in reply.entries}


def _entity(parts: Sequence[Any]) -> str:
    """As `access.entity` writes it; Kafka doesn't keep the order."""
    names = {part.entity_type: DEFAULT if part.entity_name is None else part.entity_name for part in parts}
    return ",".join(f"{kind}={names[kind]}" for kind in ("user", "client-id", "ip") if kind in names)

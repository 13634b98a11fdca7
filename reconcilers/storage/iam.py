"""Policies, users, groups and access keys of a MinIO: observed by one export, changed by its admin API. I/O.

The export holds every secret in clear. It is read, compared and dropped within `observe`; what leaves is whether a secret
is the declared one.
"""

from __future__ import annotations

import hmac
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from reconcilers.contract import ExternalId, Fence, Outcome, Result, SecretNotFound, Secrets, TerminalError
from reconcilers.storage import logins, policies
from reconcilers.storage.logins import (
    ACCESS_KEY,
    GROUP,
    POLICY,
    USER,
    CreateAccessKey,
    DropAccessKey,
    DropGroup,
    DropPolicy,
    DropUser,
    HeldGroup,
    HeldKey,
    HeldUser,
    Key,
    PutMembers,
    PutPolicy,
    PutUser,
    SetGroupPolicies,
    SetGroupStatus,
    SetUserGroups,
    SetUserPolicies,
    SetUserStatus,
    UpdateAccessKey,
)
from reconcilers.storage.s3 import ADMIN, Refused, Request, S3Client
from schemas.secret import SecretRef

EXPORT: Final = "export-iam"
EXPORT_S: Final = 30.0
FOLDER: Final = "iam-assets/"
ABSENT: Final = frozenset(
    {
        "XMinioAdminNoSuchUser",
        "XMinioAdminNoSuchGroup",
        "XMinioAdminNoSuchPolicy",
        "XMinioInvalidIAMCredentials",
        "XMinioAdminServiceAccountNotFound",
    }
)
KINDS: Final = (POLICY, USER, GROUP, ACCESS_KEY)

Wanted = Mapping[ExternalId, Any]
Found = dict[ExternalId, Any]


class _Export:
    """One export, for as long as it is looked at. Its `repr` is the default one: nothing of it gets into a log."""

    def __init__(self, body: bytes) -> None:
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            parts = {name.removeprefix(FOLDER): json.loads(archive.read(name)) or {} for name in archive.namelist()}
        self.policies: Mapping[str, Any] = parts.get("policies.json", {})
        self.users: Mapping[str, Any] = parts.get("users.json", {})
        self.groups: Mapping[str, Any] = parts.get("groups.json", {})
        self.keys: Mapping[str, Any] = parts.get("svcaccts.json", {})
        self.user_policies = _mapped(parts.get("user_mappings.json", {}))
        self.group_policies = _mapped(parts.get("group_mappings.json", {}))

    def groups_of(self, user: str) -> frozenset[str]:
        """The groups that a user is in."""
        return frozenset(name for name, group in self.groups.items() if user in (group.get("members") or ()))


class Iam:
    """Who may log in to one server. `allowed` False: we may not look."""

    def __init__(self, client: S3Client, secrets: Secrets) -> None:
        self._client = client
        self._secrets = secrets
        self.allowed = False
        self._observers: Mapping[str, Callable[[_Export, str, Any], Any]] = {
            POLICY: _policy,
            USER: self._user,
            GROUP: _group,
            ACCESS_KEY: self._key,
        }

    async def detect(self) -> None:
        """See whether we may look."""
        try:
            await self._exported()
        except Refused:
            self.allowed = False
        else:
            self.allowed = True

    async def _exported(self) -> bytes:
        return (await self._client.call(Request("GET", ADMIN + EXPORT, timeout_s=EXPORT_S))).body

    # --- observation ---------------------------------------------------------------------------------------------------

    async def observe(self, wanted: Wanted) -> Found:
        """What is there; absent ones are missing."""
        export = _Export(await self._exported())
        found: Found = {}
        for external, desired in wanted.items():
            try:
                seen = self._observers[external.setting_type](export, external.name, desired)
            except SecretNotFound as exc:
                seen = TerminalError(str(exc), reason="SecretNotFound")
            if seen is not None:
                found[external] = seen
        return found

    async def all_of(self, setting_type: str) -> Found:
        """Every object of a kind, the server's own too."""
        export = _Export(await self._exported())
        names = {POLICY: export.policies, USER: export.users, GROUP: export.groups, ACCESS_KEY: export.keys}
        look = self._observers[setting_type]
        return {ExternalId(setting_type, name): look(export, name, None) for name in sorted(names[setting_type])}

    def _user(self, export: _Export, name: str, desired: logins.User | None) -> HeldUser | None:
        user = export.users.get(name)
        if user is None:
            return None
        wanted_policies = (desired.policies if desired else None) or frozenset()
        wanted_groups = (desired.groups if desired else None) or frozenset()
        return HeldUser(
            enabled=user.get("status") == "enabled",
            current=desired is None or self._same(user.get("secretKey"), desired.secret),
            policies=export.user_policies.get(name, frozenset()),
            groups=export.groups_of(name),
            missing_policies=wanted_policies - export.policies.keys(),
            missing_groups=wanted_groups - export.groups.keys(),
        )

    def _key(self, export: _Export, name: str, desired: Key | None) -> HeldKey | None:
        key = export.keys.get(name)
        if key is None:
            return None
        expires_at = int(datetime.fromisoformat(key.get("expiration") or "1970-01-01T00:00:00Z").timestamp())
        session = key.get("sessionPolicy")
        return HeldKey(
            user=str(key.get("parent")),
            current=desired is None or self._same(key.get("secretKey"), desired.secret),
            policy=policies.canonical(session) if session else None,
            enabled=key.get("status") in ("on", "enabled"),
            expires_at=expires_at if expires_at > 0 else None,
            description=str(key.get("description") or ""),
        )

    def _same(self, held: Any, reference: SecretRef) -> bool:
        return hmac.compare_digest(str(held).encode(), self._secrets.reveal(reference).encode())

    # --- steps ---------------------------------------------------------------------------------------------------------

    async def apply(self, step: Any, fence: Fence) -> Outcome:
        """Carry out one step. Raises what the client raises."""
        name = step.external.name
        match step:
            case PutPolicy():
                await self._put("add-canned-policy", {"name": name}, step.policy.text().encode(), fence)
            case DropPolicy():
                await self._drop("remove-canned-policy", {"name": name}, fence)
            case PutUser() | SetUserStatus() | DropUser():
                await self._apply_user(step, name, fence)
            case SetUserPolicies() | SetGroupPolicies():
                await self._map(name, step.policies, fence, is_group=isinstance(step, SetGroupPolicies))
            case SetUserGroups():
                for group in step.join:
                    await self._client.admin("GET", "group", {"group": group})  # or joining would make it
                    await self._members(group, [name], fence, remove=False)
                for group in step.leave:
                    await self._members(group, [name], fence, remove=True)
            case CreateAccessKey() | UpdateAccessKey() | DropAccessKey():
                await self._apply_key(step, name, fence)
            case _:
                await self._apply_group(step, name, fence)
        return Outcome(Result.SUCCEEDED)

    async def _apply_user(self, step: Any, name: str, fence: Fence) -> None:
        match step:
            case PutUser():
                status = "enabled" if step.enabled else "disabled"
                body = await self._client.sealed({"secretKey": self._secrets.reveal(step.secret), "status": status})
                await self._put("add-user", {"accessKey": name}, body, fence)
            case SetUserStatus():
                query = {"accessKey": name, "status": "enabled" if step.enabled else "disabled"}
                await self._put("set-user-status", query, b"", fence)
            case _:
                await self._drop("remove-user", {"accessKey": name}, fence)

    async def _apply_group(self, step: Any, name: str, fence: Fence) -> None:
        match step:
            case PutMembers():
                if step.add or not step.remove:
                    await self._members(name, step.add, fence, remove=False)
                if step.remove:
                    await self._members(name, step.remove, fence, remove=True)
            case SetGroupStatus():
                status = "enabled" if step.enabled else "disabled"
                await self._put("set-group-status", {"group": name, "status": status}, b"", fence)
            case DropGroup():
                await self._map(name, (), fence, is_group=True)
                if step.members:
                    await self._members(name, step.members, fence, remove=True)
                await self._members(name, (), fence, remove=True)
            case _:
                raise TerminalError("this target can't carry out the step", reason="Unsupported")

    async def _apply_key(self, step: Any, name: str, fence: Fence) -> None:
        if isinstance(step, DropAccessKey):
            await self._drop("delete-service-account", {"accessKey": name}, fence)
            return
        content = self._key_content(step.key)
        if isinstance(step, CreateAccessKey):
            body = await self._client.sealed({"accessKey": name, "targetUser": step.key.user, **content})
            await self._put("add-service-account", {}, body, fence)
            if step.key.enabled:
                return
        new = {f"new{field[0].upper()}{field[1:]}": value for field, value in content.items()}
        body = await self._client.sealed({**new, "newStatus": "on" if step.key.enabled else "off"})
        await self._client.admin("POST", "update-service-account", {"accessKey": name}, body, fence=fence)

    def _key_content(self, key: Key) -> dict[str, Any]:
        """Everything of a key; see A key's update in `logins.UpdateAccessKey`."""
        content: dict[str, Any] = {"secretKey": self._secrets.reveal(key.secret)}
        if key.policy is not None:
            content["policy"] = key.policy.document()
        if key.description:
            content["description"] = key.description
        if key.expires_at is not None:
            content["expiration"] = datetime.fromtimestamp(key.expires_at, UTC).isoformat().replace("+00:00", "Z")
        return content

    async def _map(self, name: str, names: tuple[str, ...], fence: Fence, *, is_group: bool) -> None:
        query = {"policyName": ",".join(names), "userOrGroup": name, "isGroup": "true" if is_group else "false"}
        try:
            await self._put("set-user-or-group-policy", query, b"", fence)
        except Refused as exc:
            if names or exc.code not in (*ABSENT, "XMinioAdminPolicyChangeAlreadyApplied"):
                raise

    async def _members(self, group: str, members: Any, fence: Fence, *, remove: bool) -> None:
        body = {"group": group, "members": list(members), "groupStatus": "enabled", "isRemove": remove}
        try:
            await self._put("update-group-members", {}, json.dumps(body).encode(), fence)
        except Refused as exc:
            if not remove or exc.code not in ABSENT:
                raise

    async def _put(self, command: str, query: Mapping[str, str], body: bytes, fence: Fence) -> None:
        await self._client.admin("PUT", command, query, body, fence=fence)

    async def _drop(self, command: str, query: Mapping[str, str], fence: Fence) -> None:
        try:
            await self._client.admin("DELETE", command, query, fence=fence)
        except Refused as exc:
            if exc.code not in ABSENT:
                raise


def _policy(export: _Export, name: str, _desired: Any) -> policies.Policy | None:
    document = export.policies.get(name)
    return None if document is None else policies.canonical(document)


def _group(export: _Export, name: str, desired: logins.Group | None) -> HeldGroup | None:
    group = export.groups.get(name)
    if group is None:
        return None
    wanted_policies = (desired.policies if desired else None) or frozenset()
    wanted_members = (desired.members if desired else None) or frozenset()
    return HeldGroup(
        enabled=group.get("status") == "enabled",
        members=frozenset(group.get("members") or ()),
        policies=export.group_policies.get(name, frozenset()),
        missing_policies=wanted_policies - export.policies.keys(),
        missing_members=wanted_members - export.users.keys(),
    )


def _mapped(mappings: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    return {name: frozenset(filter(None, one.get("policy", "").split(","))) for name, one in mappings.items()}

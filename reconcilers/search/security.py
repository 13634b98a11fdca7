"""Roles and users of the native realm. I/O.

A password can't be read back. What we wrote last is known by a keyed fingerprint in the user's metadata; that somebody else
changed it only a login tells (the target's `verify_passwords`), which costs the server a slow hash.
`PUT` of a user replaces everything but the password, which it keeps when none is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from reconcilers.contract import ExternalId, Fence, Outcome, SecretNotFound, Secrets, TerminalError
from reconcilers.search.documents import USER_MARK, Document, Held, PutDocument, RemoveDocument
from reconcilers.search.wire import Wire, basic, done, path_of

LOGINS: Final = 4
"""Users that are logged in as at the same time."""
_ROLE_PARTS: Final = ("cluster", "indices", "applications", "run_as", "metadata")
_USER_PARTS: Final = ("roles", "enabled", "full_name", "email", "metadata")


class Security:
    """Roles and users of one cluster."""

    def __init__(self, wire: Wire, secrets: Secrets, *, verify_passwords: bool, own_name: str | None) -> None:
        self._wire = wire
        self._secrets = secrets
        self._verifies = verify_passwords
        self._own_name = own_name
        self._gate = asyncio.Semaphore(LOGINS)

    async def observe_roles(self, wanted: Mapping[ExternalId, Document | None]) -> dict[ExternalId, Any]:
        """All by one request."""
        listed = await self._wire.ask("GET", "/_security/role")
        found: dict[ExternalId, Any] = {}
        for external, desired in wanted.items():
            raw = listed.get(external.name)
            if raw is not None:
                held = {part: _ordered(raw.get(part)) for part in _ROLE_PARTS}
                body = {} if desired is None else {part: _ordered(desired.body[part]) for part in _ROLE_PARTS}
                found[external] = self._held(external, held, body, raw)
        return found

    async def observe_users(self, wanted: Mapping[ExternalId, Document | None]) -> dict[ExternalId, Any]:
        """All by one request, and perhaps a login each."""
        listed = await self._wire.ask("GET", "/_security/user")
        roles = await self._wire.ask("GET", "/_security/role")
        looks = [
            self._user(external, desired, listed.get(external.name), roles) for external, desired in wanted.items()
        ]
        found = await asyncio.gather(*looks)
        return {external: one for external, one in zip(wanted, found, strict=True) if one is not None}

    async def _user(self, external: ExternalId, desired: Document | None, raw: Any, roles: Mapping[str, Any]) -> Any:
        if raw is None:
            return None
        metadata = {name: value for name, value in raw["metadata"].items() if name != USER_MARK}
        written = raw["metadata"].get(USER_MARK, {}).get("password", "")
        held = {part: _ordered(raw.get(part)) for part in _USER_PARTS} | {"metadata": metadata, "password": written}
        if desired is None:
            return self._held(external, held, {}, raw)
        if desired.secret is None:  # the password is nobody's declaration
            del held["password"]
            return self._held(external, held, {part: _ordered(desired.body[part]) for part in _USER_PARTS}, raw)
        try:
            password = self._secrets.reveal(desired.secret)
        except SecretNotFound as exc:
            return TerminalError(str(exc), reason="SecretNotFound")
        body = {part: _ordered(desired.body[part]) for part in _USER_PARTS}
        body["password"] = self._secrets.fingerprint(password)
        if self._verifies and held["password"] == body["password"] and not await self._logs_in(external.name, password):
            held["password"] = "changed by somebody else"  # noqa: S105 - not a password
        missing = [name for name in desired.body["roles"] if name not in roles]
        warnings = (f"roles that don't exist: {', '.join(missing)}",) if missing else ()
        return self._held(external, held, body, raw, warnings)

    def _held(
        self,
        external: ExternalId,
        held: dict[str, Any],
        body: Mapping[str, Any],
        raw: Any,
        warnings: tuple[str, ...] = (),
    ) -> Held | TerminalError:
        if raw.get("metadata", {}).get("_reserved"):
            return TerminalError(f"{external.name} is the server's own", reason="Reserved")
        return Held(held, body, warnings=warnings)

    async def _logs_in(self, name: str, password: str) -> bool:
        async with self._gate:
            answer = await self._wire.call("GET", "/_security/_authenticate", authorization=basic(name, password))
        return answer.status == 200

    async def listed(self, kind: str) -> Mapping[str, Any]:
        """All roles or users, as the server tells them."""
        found: Mapping[str, Any] = await self._wire.ask("GET", path_of("_security", kind))
        return found

    async def put_role(self, step: PutDocument, fence: Fence) -> Outcome:
        """The whole role."""
        await self._wire.send(fence, "PUT", path_of("_security", "role", step.external.name), dict(step.document.body))
        return done()

    async def put_user(self, step: PutDocument, fence: Fence) -> Outcome:
        """The whole user, with the password."""
        if step.external.name == self._own_name:
            message = f"the daemon itself logs in as {step.external.name}: it won't change the user it is"
            raise TerminalError(message, reason="SelfLockout")
        body = {name: value for name, value in step.document.body.items() if value is not None}
        if step.document.secret is not None:
            body["password"] = self._secrets.reveal(step.document.secret)
            mark = {USER_MARK: {"password": self._secrets.fingerprint(body["password"])}}
            body["metadata"] = {**body["metadata"], **mark}
        path = path_of("_security", "user", step.external.name)
        async with self._gate:
            await self._wire.send(fence, "PUT", path, body)
        return done()

    async def remove_role(self, step: RemoveDocument, fence: Fence) -> Outcome:
        """Remove it."""
        await self._wire.send(fence, "DELETE", path_of("_security", "role", step.external.name), absent=None)
        return done()

    async def remove_user(self, step: RemoveDocument, fence: Fence) -> Outcome:
        """Remove it."""
        await self._wire.send(fence, "DELETE", path_of("_security", "user", step.external.name), absent=None)
        return done()


def _ordered(value: Any) -> Any:
    """Lists of names in one order; `indices` entries with their lists in order."""
    if isinstance(value, list):
        rows = [_ordered(one) for one in value]
        return sorted(rows) if all(isinstance(one, str) for one in rows) else rows
    if isinstance(value, Mapping):
        return {name: _ordered(one) for name, one in value.items()}
    return value

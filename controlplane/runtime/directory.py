"""Tokens, tenants and shares as this replica knows them: derived from the folded state, the moment it moves.

Every replica holds its own and asks nobody, so a token that is revoked is refused wherever the revocation is folded, and
whoever waits for `changed` (an open stream) learns of it at once. What is declared wrongly, by a newer version or past the
API, gives nobody anything.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import structlog
from pydantic import BaseModel, ValidationError

from controlplane.domain.fold import Entry, State, Verdict
from controlplane.domain.requests import ChangeRequest
from schemas.access import ACCESS_KINDS, Quotas, Share, Tenant, Token
from schemas.names import ACCESS, SYSTEM, parse_key

_log = structlog.get_logger()

_MARK: Final = f"/{ACCESS}."
_UNLIMITED: Final = Quotas()


class KnownToken(NamedTuple):
    """A token of the log, by the key of its setting."""

    key: str
    token: Token

    @property
    def tenant(self) -> str:
        """Where it is declared."""
        return self.key.partition("/")[0]

    @property
    def actor(self) -> str:
        """Who stands in the log for what is done with it: `acme/ci`."""
        tenant, _, name = self.key.split("/")
        return f"{tenant}/{name}"


class Directory:
    """What `access` settings mean. `configured`: tenants that exist without being declared."""

    def __init__(self, state: State, configured: Sequence[str]) -> None:
        self._state = state
        self._configured = tuple(configured)
        self._values: dict[str, BaseModel] = {}
        self._tokens: dict[str, KnownToken] = {}
        self._tenants: dict[str, Tenant] = {}
        self._prefixes: dict[tuple[str, str], str] = {}
        self._counts: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def load(self) -> None:
        """Read all of the state; call before `follow` is."""
        self._counts = Counter(key.partition("/")[0] for key in self._state.entries)
        for key in self._state.entries:
            if _MARK in key:
                self._update(key)
        self._arrange()

    def follow(self, _offset: int, _request: ChangeRequest, verdict: Verdict) -> None:
        """Take in one folded record; see `Replica.listen`."""
        moved = [outcome.key for outcome in verdict.outcomes if _MARK in outcome.key]
        for outcome in verdict.outcomes:
            if outcome.outcome in _CHANGES:
                self._counts[outcome.key.partition("/")[0]] += _CHANGES[outcome.outcome]
        if moved:
            for key in moved:
                self._update(key)
            self._arrange()
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def changed(self) -> None:
        """Wait until any of it changes."""
        await self._changed.wait()

    def token(self, digest: str) -> KnownToken | None:
        """The token with this SHA-256, expired or not; None when it is unknown or revoked."""
        return self._tokens.get(digest)

    def tokens(self) -> Iterable[KnownToken]:
        """All of them."""
        return self._tokens.values()

    def tenants(self) -> tuple[str, ...]:
        """Every tenant there is, the system's aside."""
        return tuple(dict.fromkeys((*self._configured, *sorted(self._tenants))))

    def has(self, tenant: str) -> bool:
        """True when the tenant may be used."""
        return tenant == SYSTEM or tenant in self._tenants or tenant in self._configured

    def quotas(self, tenant: str) -> Quotas:
        """What the tenant may use."""
        known = self._tenants.get(tenant)
        return _UNLIMITED if known is None else known.quotas

    def settings_in(self, tenant: str) -> int:
        """How many settings the tenant has."""
        return self._counts[tenant]

    @property
    def shares_anything(self) -> bool:
        """True when any target is shared."""
        return bool(self._prefixes)

    def prefix(self, tenant: str, target: str) -> str | None:
        """The prefix under which the tenant may use the target (a key) of another; None when it may not."""
        return self._prefixes.get((tenant, target))

    def prefixes(self, target: str) -> Mapping[str, str]:
        """Tenant → prefix, of all that the target (a key) is shared with."""
        return {tenant: prefix for (tenant, key), prefix in self._prefixes.items() if key == target}

    def _update(self, key: str) -> None:
        entry = self._state.entries.get(key)
        value = None if entry is None or entry.retiring else _value(entry)
        if value is None:
            self._values.pop(key, None)
        else:
            self._values[key] = value

    def _arrange(self) -> None:
        """Of two that say the same the older one counts."""
        by_age = sorted(self._values.items(), key=lambda item: (self._state.entries[item[0]].created_revision, item[0]))
        tokens: dict[str, KnownToken] = {}
        tenants: dict[str, Tenant] = {}
        shares: list[Share] = []
        for key, value in by_age:
            if isinstance(value, Token):
                tokens.setdefault(value.sha256, KnownToken(key, value))
            elif isinstance(value, Tenant):
                tenants[parse_key(key).name] = value
            elif isinstance(value, Share):
                shares.append(value)
        self._tokens, self._tenants, self._prefixes = tokens, tenants, in_effect(shares)


def in_effect(shares: Iterable[Share]) -> dict[tuple[str, str], str]:
    """(tenant, key of the target) → prefix. A share whose prefix overlaps that of an older one gives nothing."""
    found: dict[tuple[str, str], str] = {}
    for share in shares:
        taken = [prefix for (_, target), prefix in found.items() if target == share.target]
        if not any(overlap(prefix, share.prefix) for prefix in taken):
            found.setdefault((share.tenant, share.target), share.prefix)
    return found


def overlap(one: str, other: str) -> bool:
    """True when a name can begin with both."""
    return one.startswith(other) or other.startswith(one)


_CHANGES: Final = {"created": 1, "forgotten": -1}


def _value(entry: Entry) -> BaseModel | None:
    """The value; None when it can't be understood or stands where it means nothing."""
    key = parse_key(entry.key)
    model = ACCESS_KINDS.get(key.setting_type)
    if model is None or not stands(key.tenant, key.setting_type):
        return None
    try:
        return model.model_validate(entry.body["value"])
    except ValidationError:
        _log.warning("access setting not understood", setting=entry.key)
        return None


def stands(tenant: str, setting_type: str) -> bool:
    """True when a setting of the type means something in the tenant."""
    return tenant == SYSTEM or setting_type == "access.token"

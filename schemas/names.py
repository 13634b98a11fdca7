"""Keys, names, ids and timestamps: the spelling everything else relies on."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Final, NamedTuple

from pydantic import StringConstraints

SERVICES: Final = ("tasks", "websocket", "storage", "search", "cache", "queue", "mesh", "loadbalancer")

ACCESS: Final = "access"
"""What says who may do what stands beside the services: setting types `access.token`, `access.tenant`, `access.share`."""

SYSTEM: Final = "system"
"""The tenant of the administration: it always exists and holds settings of `access` alone."""
DEFAULT: Final = "default"
"""The tenant that is there when nobody names any."""

NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
SETTING_TYPE_PATTERN: Final = rf"^({'|'.join((*SERVICES, ACCESS))})\.[a-z][a-z0-9_]{{0,63}}$"
TARGET_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9][A-Za-z0-9._-]{0,127})?$"
REFERENCE_PATTERN: Final = r"^[a-z]+\.[a-z0-9_]+/[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
TargetName = Annotated[str, StringConstraints(pattern=TARGET_PATTERN)]
"""A target of the same service and tenant, or `{tenant}/{name}`: one that another tenant shares."""
SettingType = Annotated[str, StringConstraints(pattern=SETTING_TYPE_PATTERN)]
Reference = Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]
"""`type/name` of another setting of the same tenant."""

NAMESPACE: Final = uuid.UUID("5f0c0a3e-8a52-5d2f-9f0e-6b1d0b6f7c11")
"""Namespace of every UUIDv5 made here; changing it changes every id ever published."""

_NAME = re.compile(NAME_PATTERN)
_SETTING_TYPE = re.compile(SETTING_TYPE_PATTERN)


class Key(NamedTuple):
    """Identity of a setting: `tenant/setting_type/name`."""

    tenant: str
    setting_type: str
    name: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.setting_type}/{self.name}"

    @property
    def service(self) -> str:
        """`cache` for `cache.redis_user`."""
        return self.setting_type.partition(".")[0]

    @property
    def reference(self) -> str:
        """`type/name`, as declarations of the same tenant refer to it."""
        return f"{self.setting_type}/{self.name}"


@lru_cache(maxsize=16_384)
def parse_key(text: str) -> Key:
    """The key written as `tenant/setting_type/name`; ValueError when it isn't one. A sweep asks for each key several times."""
    parts = text.split("/")
    if len(parts) != 3 or not _named(parts):
        msg = f"{text!r} is not a key: expected tenant/setting_type/name"
        raise ValueError(msg)
    return Key(*parts)


def _named(parts: list[str]) -> bool:
    # `fullmatch`, because `$` also matches before a newline at the end.
    tenant, setting_type, name = parts
    return bool(_NAME.fullmatch(tenant) and _SETTING_TYPE.fullmatch(setting_type) and _NAME.fullmatch(name))


def setting_id(key: str) -> str:
    """`InfrastructureSetting.id`: UUIDv5 of the key."""
    return str(uuid.uuid5(NAMESPACE, key))


def event_id(incarnation: str, sequence: int) -> str:
    """`InfrastructureEvent.id`: UUIDv5 of who wrote it and the how-manieth it was."""
    return str(uuid.uuid5(NAMESPACE, f"{incarnation}:{sequence}"))


def timestamp(instant: float) -> str:
    """Unix seconds as RFC 3339 UTC with six decimals, so that text order is time order."""
    return datetime.fromtimestamp(instant, UTC).isoformat(timespec="microseconds")[:-6] + "Z"


def parse_timestamp(text: str) -> float:
    """RFC 3339 text as Unix seconds; ValueError when it isn't a time with an offset."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        msg = f"{text!r} has no time zone: write for example 2026-01-31T12:00:00Z"
        raise ValueError(msg)
    return moment.timestamp()

"""What a declaration stands on by naming it: topics before permissions on them, and before routes. Pure.

Names are those of the objects in Kafka. Of permissions only those on one topic count: what all topics with a prefix, or all
groups, are called nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterable

from reconcilers.queue import access, model
from schemas import queue


def of_user(value: queue.User) -> list[str]:
    """The topics that it may use."""
    return _topics(value.acls or ())


def before_user(setting: str, value: queue.User) -> list[str]:
    """Its permissions and quotas when they are settings of their own: who can log in may then do something."""
    name = access.username(setting, value)
    permissions = [f"{access.ACL}/{access.principal_of(name)}"] if value.acls is None else []
    return [*permissions, *([f"{access.QUOTA}/user={name}"] if value.quotas is None else [])]


def of_acl(value: queue.Acl) -> list[str]:
    """The topics that may be used."""
    return _topics(value.acls)


def _topics(permissions: Iterable[queue.Permission]) -> list[str]:
    named = (one.resource_name for one in permissions if one.resource == "topic" and one.pattern == "literal")
    return [f"{model.TOPIC}/{name}" for name in named if name != "*"]


def of_route(value: queue.Route) -> list[str]:
    """The topics that messages come from and go to."""
    dead = value.on_error.dead_letter
    return [f"{model.TOPIC}/{name}" for name in (value.source, *value.to, *([] if dead is None else [dead]))]

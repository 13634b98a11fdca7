"""What a declaration may reach on a cluster that several tenants share: names that begin with the tenant's prefix. Pure.

Topics, groups, transactional ids, users and client ids each have names of their own in Kafka, and prefixed permissions hold
for each; what concerns the cluster as a whole can't be confined. How much disk and bandwidth a tenant takes isn't either:
give its users quotas.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from reconcilers.contract import Trespass
from reconcilers.queue.access import DEFAULT, entity_parts
from schemas import queue


def nothing(_value: object, _prefix: str) -> list[Trespass]:
    """Beside the object itself nothing is reached."""
    return []


def of_user(value: queue.User, prefix: str) -> list[Trespass]:
    """Permissions on what is somebody else's."""
    return list(_beyond(value.acls or (), prefix))


def of_acl(value: queue.Acl, prefix: str) -> list[Trespass]:
    """As of a user."""
    return list(_beyond(value.acls, prefix))


def _beyond(permissions: Iterable[queue.Permission], prefix: str) -> Iterator[Trespass]:
    for index, one in enumerate(permissions):
        if one.resource == "cluster":
            yield Trespass(f"/acls/{index}/resource", "the cluster is not the tenant's alone")
        elif not one.resource_name.startswith(prefix):
            yield Trespass(f"/acls/{index}/name", f"must begin with {prefix}")


def of_route(value: queue.Route, prefix: str) -> list[Trespass]:
    """Topics that messages are taken from or put into."""
    named = [("/source", value.source), *((f"/to/{index}", topic) for index, topic in enumerate(value.to))]
    named += [("/on_error/dead_letter", value.on_error.dead_letter)] if value.on_error.dead_letter else []
    return [Trespass(path, f"must begin with {prefix}") for path, topic in named if not topic.startswith(prefix)]


def principal_belongs(principal: str, prefix: str) -> bool:
    """`User:acme.app` is of `acme.`; `User:*` is of nobody."""
    return principal.partition(":")[2].startswith(prefix)


def entity_belongs(entity: str, prefix: str) -> bool:
    """Limits of a user of the tenant, of all its clients too; or of a client, when they are of no user's."""
    parts = entity_parts(entity)
    name = parts.get("user", parts.get("client-id", DEFAULT))
    return name.startswith(prefix)

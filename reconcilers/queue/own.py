"""Self-hosting: what is refused because the control plane would cut itself off, or damage its own records. Pure.

`reserved` names what it keeps for itself in the cluster: the tables of routes, and, where its log is there too, the topics of
that and the principal that it is. A route may read its topics (its events are there to be read), and never write into them.

Note [Limits for everybody]. Of the limits that fit a client Kafka takes the most specific one, for each key by itself. So a limit
for `<default>` holds for the control plane as well unless its login has one of its own, and taking that away lets the other
in. What counts is therefore what would hold for us afterwards: less than ROOM is refused, unless it is no less than before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from reconcilers.contract import TerminalError
from reconcilers.queue import routing
from reconcilers.queue.access import ACL, DEFAULT, QUOTA, USER, Rates, principal_of
from reconcilers.queue.model import TOPIC
from reconcilers.queue.routing import ROUTE

EVERYBODY = "User:*"
OURS: Final = (routing.TABLES, routing.CANARIES)
CLIENT_ID: Final = "coreplane"
"""By which all clients of the daemon are known to the cluster."""
ANONYMOUS: Final = "ANONYMOUS"
"""Who comes in without a login."""
ROOM: Final[Rates] = {
    "producer_byte_rate": 10_000_000.0,
    "consumer_byte_rate": 10_000_000.0,
    "request_percentage": 100.0,
    "controller_mutation_rate": 100.0,
    "connection_creation_rate": 10.0,
}
"""Limits that the control plane can live with: it makes 250 topics and reads its routes' sources without being held up."""


class Selves(NamedTuple):
    """Who the control plane is in a cluster."""

    users: frozenset[str]
    addresses: frozenset[str] = frozenset()
    """Where it comes from; unknown is none."""


def affair(reserved: frozenset[str], setting_type: str, name: str, desired: Any) -> TerminalError | None:
    """Why an object isn't touched, whatever is declared of it."""
    if setting_type == TOPIC:
        return topic(reserved, name)
    if setting_type == ROUTE:
        return _route(reserved, desired)
    principal = principal_of(name) if setting_type == USER else name
    if setting_type != QUOTA and principal in reserved:
        return _user(principal)
    if setting_type == ACL and name == EVERYBODY and desired is not None:
        mine = next((one for one in reserved if one.startswith("User:")), None)
        shuts = any(one.permission == "deny" for one in desired)
        return _user(mine) if mine is not None and shuts else None
    return None


def denial(login: str, setting_type: str, name: str, desired: Any) -> TerminalError | None:
    """Why whom the target logs in as isn't denied anything. What it is to lose is judged where it is seen: `plan_acl`."""
    if setting_type != ACL or name not in (principal_of(login), EVERYBODY) or desired is None:
        return None
    if not any(one.permission == "deny" for one in desired):
        return None
    message = f"the daemon itself is {principal_of(login)} and would lose permissions"
    return TerminalError(message, reason="SelfLockout")


def throttle(selves: Selves, held: Mapping[str, Rates], entity: str, wanted: Rates) -> TerminalError | None:
    """Why an entity doesn't get these limits. `held`: entity → what holds now. See Note [Limits for everybody]."""
    then = {**held, entity: wanted}
    for chain, advice in _chains(selves):
        if entity not in chain:
            continue
        for key, room in ROOM.items():
            before, after = _effective(held, chain, key), _effective(then, chain, key)
            if after is not None and after < room and (before is None or after < before):
                message = (
                    f"{key} {after:g} would hold up the control plane itself: {advice} {key} {room:g} or more first"
                )
                return TerminalError(message, reason="SelfThrottled")
    return None


def _chains(selves: Selves) -> list[tuple[list[str], str]]:
    """The entities whose limits may hold for us, the most specific first; and what helps."""
    clients = (f",client-id={CLIENT_ID}", f",client-id={DEFAULT}", "")
    found = [
        (
            [
                *(f"user={user}{client}" for user in (name, DEFAULT) for client in clients),
                *(client.removeprefix(",") for client in clients[:2]),
            ],
            f"give user {name}",
        )
        for name in sorted(selves.users)
    ]
    return found + [([f"ip={address}", f"ip={DEFAULT}"], f"give ip {address}") for address in sorted(selves.addresses)]


def _effective(limits: Mapping[str, Rates], chain: list[str], key: str) -> float | None:
    return next((limits[entity][key] for entity in chain if key in limits.get(entity, {})), None)


def topic(reserved: frozenset[str], name: str) -> TerminalError | None:
    """Why a topic isn't touched. Tables of routes are nobody's but their router's, whichever target's they are."""
    if name not in reserved and not name.startswith(OURS):
        return None
    msg = f"{name} is where this control plane keeps its own records"
    return TerminalError(msg, reason="OwnTopic")


def group(name: str) -> TerminalError | None:
    """Why a group's offsets aren't touched."""
    if not name.startswith(routing.ROUTERS):
        return None
    msg = f"group {name} is where routers keep how far they are: messages would be lost, or come twice"
    return TerminalError(msg, reason="OwnGroup")


def _user(principal: str) -> TerminalError:
    message = f"{principal} is who this control plane is where its own records are: this could shut it out"
    return TerminalError(message, reason="OwnUser")


def _route(reserved: frozenset[str], definition: str | None) -> TerminalError | None:
    if definition is None:
        return None
    route = json.loads(definition)
    written = [*route["to"], route.get("on_error", {}).get("dead_letter")]
    return next((why for name in written if name is not None and (why := topic(reserved, name))), None)

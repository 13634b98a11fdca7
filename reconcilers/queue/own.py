"""Self-hosting: what is refused because the control plane would cut itself off, or damage its own records. Pure.

`reserved` names what it keeps for itself in the cluster: the table of routes, and, where its log is there too, the topics of that
and the principal that it is. A route may read its topics (its events are there to be read), and never write into them.
"""

from __future__ import annotations

import json
from typing import Any

from reconcilers.contract import TerminalError
from reconcilers.queue.access import ACL, QUOTA, USER, entity_parts, principal_of
from reconcilers.queue.model import TOPIC
from reconcilers.queue.routing import ROUTE

EVERYBODY = "User:*"


def affair(reserved: frozenset[str], setting_type: str, name: str, desired: Any) -> TerminalError | None:
    """Why an object isn't touched, whatever is declared of it."""
    if setting_type == TOPIC:
        return topic(name) if name in reserved else None
    if setting_type == ROUTE:
        return _route(reserved, desired)
    principal = _principal(setting_type, name)
    if principal in reserved:
        return _user(principal)
    if setting_type == ACL and name == EVERYBODY and desired is not None:
        mine = next((one for one in reserved if one.startswith("User:")), None)
        shuts = any(one.permission == "deny" for one in desired)
        return _user(mine) if mine is not None and shuts else None
    return None


def denial(login: str | None, setting_type: str, name: str, desired: Any) -> TerminalError | None:
    """Why whom the target logs in as isn't denied anything. What it is to lose is judged where it is seen: `plan_acl`."""
    if login is None or (setting_type, name) != (ACL, principal_of(login)) or desired is None:
        return None
    if not any(one.permission == "deny" for one in desired):
        return None
    return TerminalError(f"the daemon itself is {name} and would lose permissions", reason="SelfLockout")


def topic(name: str) -> TerminalError:
    """Why a topic isn't touched."""
    msg = f"{name} is where this control plane keeps its own records"
    return TerminalError(msg, reason="OwnTopic")


def _user(principal: str) -> TerminalError:
    message = f"{principal} is who this control plane is where its own records are: this could shut it out"
    return TerminalError(message, reason="OwnUser")


def _principal(setting_type: str, name: str) -> str:
    if setting_type == USER:
        return principal_of(name)
    if setting_type == QUOTA:
        return principal_of(entity_parts(name).get("user", ""))
    return name


def _route(reserved: frozenset[str], definition: str | None) -> TerminalError | None:
    if definition is None:
        return None
    route = json.loads(definition)
    written = [*route["to"], route.get("on_error", {}).get("dead_letter")]
    return next((topic(name) for name in written if name in reserved), None)

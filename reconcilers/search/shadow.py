"""What the server makes of a definition, and what it says to a change. I/O, on scratch objects only.

`POST _index_template/_simulate` validates a definition as a create would, answers its canonical form and writes nothing.
An empty shadow of the index, unallocated (no node may hold it) and hidden, takes a change or refuses it, as the index would:
some 75 ms in all. A mapping's verdict is the same on an open and on a closed index.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final

from reconcilers.contract import TerminalError
from reconcilers.search.definition import (
    TIER,
    Body,
    changed_settings,
    differing_mappings,
    flattened,
    makeable,
)
from reconcilers.search.generations import Generation
from reconcilers.search.migrating import unmarked
from reconcilers.search.model import Verdict
from reconcilers.search.wire import Refused, Wire, path_of

NEVER: Final = "coreplane-never-matches-*"
SHADOW: Final = "coreplane-shadow-"
_UNALLOCATED: Final = {
    "index.routing.allocation.require._name": "coreplane-no-such-node",
    "index.number_of_replicas": "0",
    "index.auto_expand_replicas": "false",
    "index.hidden": "true",
}


async def simulated(wire: Wire, template: Mapping[str, Any], composed_of: tuple[str, ...] = ()) -> Body:
    """The canonical form of settings, mappings and aliases. Raises `TerminalError` InvalidDefinition."""
    body = {"index_patterns": [NEVER], "priority": 1_000_000, "template": template, "composed_of": list(composed_of)}
    try:
        answer = await wire.ask("POST", "/_index_template/_simulate", body)
    except Refused as exc:
        raise TerminalError(exc.message, reason="InvalidDefinition") from exc
    found = answer["template"]
    return Body(flattened(found.get("settings", {})), found.get("mappings", {}), found.get("aliases", {}))


async def canonical(wire: Wire, body: Body) -> Body:
    """The same for a declaration: without what the server adds by itself."""
    found = await simulated(wire, template_of(body))
    settings = {name: value for name, value in found.settings.items() if name != TIER or name in body.settings}
    # null means the default: the server leaves it out, and it is to be set all the same
    nulls = {name: None for name, value in body.settings.items() if value is None}
    return Body({**settings, **nulls}, found.mappings, found.aliases)


def template_of(body: Body) -> dict[str, Any]:
    """As create and templates take it."""
    settings = {name: value for name, value in body.settings.items() if value is not None}
    return {"settings": settings, "mappings": body.mappings, "aliases": body.aliases}


async def verdict(wire: Wire, wanted: Body, held: Generation) -> Verdict:
    """What the index would say to the changes."""
    name = (
        SHADOW + hashlib.sha256(f"{held.name} {json.dumps(wanted.mappings, sort_keys=True)}".encode()).hexdigest()[:20]
    )
    settings = {k: v for k, v in makeable(held.settings).items() if not k.startswith("index.routing.allocation.")}
    document = {"settings": {**settings, **_UNALLOCATED}, "mappings": unmarked(held.mappings)}
    await wire.ask("DELETE", path_of(name), absent=None)
    await wire.ask("PUT", path_of(name), document, params={"wait_for_active_shards": 0})
    try:
        # Settings first: a new field may use an analyzer that comes with them.
        hows: dict[str, str] = {}
        changed = changed_settings(wanted.settings, held.settings)
        for part in _together(changed):
            how = await _setting(wire, name, {key: changed[key] for key in part})
            hows |= dict.fromkeys(part, how)
        return Verdict(await _mapping(wire, name, wanted, held), hows)
    finally:
        await wire.ask("DELETE", path_of(name), absent=None)


def _together(changed: Mapping[str, Any]) -> list[list[str]]:
    """Settings that are tried at once: the analysis, which refers to itself, and every other one alone."""
    analysis = [name for name in changed if name.startswith("index.analysis.")]
    return ([analysis] if analysis else []) + [[name] for name in changed if name not in analysis]


async def _setting(wire: Wire, name: str, settings: Mapping[str, Any]) -> str:
    answer = await wire.call("PUT", path_of(name, "_settings"), settings)
    if answer.status == 200:
        return "in_place"
    answer = await wire.call("PUT", path_of(name, "_settings"), settings, params={"reopen": True})
    return "reopen" if answer.status == 200 else _why(answer.body)


async def _mapping(wire: Wire, name: str, wanted: Body, held: Generation) -> str | None:
    if not any(True for _ in differing_mappings(wanted.mappings, held.mappings)):
        return None
    # 400 and 500 alike: what simulate takes and the shadow doesn't needs a new index.
    answer = await wire.call("PUT", path_of(name, "_mapping"), wanted.mappings)
    if answer.status != 200:
        return _why(answer.body)
    after = (await wire.ask("GET", path_of(name, "_mapping")))[name]["mappings"]
    left = [path for path, _, _ in differing_mappings(wanted.mappings, after)]
    return f"accepted, but {', '.join(left[:3])} stays as it is" if left else None


def _why(body: Any) -> str:
    error = body.get("error") if isinstance(body, Mapping) else None
    return str(error.get("reason", error) if isinstance(error, Mapping) else body)[:300]

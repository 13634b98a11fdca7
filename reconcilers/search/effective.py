"""Where templates are in effect. I/O, reads only.

A template counts when an index is made, and never again: what is changed in it later reaches no index that is there. So each
index is compared with what the template that matches it would give now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from reconcilers.search.definition import Body, differences, flattened, prefixed
from reconcilers.search.generations import mark_of
from reconcilers.search.samples import named
from reconcilers.search.wire import Wire, path_of

MOST_INDICES: Final = 500
MOST_PATHS: Final = 20
"""Differing paths that are told of an index."""
AT_ONCE: Final = 8
POLICY: Final = "index.lifecycle.name"

Template = Mapping[str, Any]


async def effective(wire: Wire, match: str) -> dict[str, Any]:
    """→ `{indices: [{index, alias?, phase?, template, policy, follows, differs}], templates: [{template, version, composed_of,
    effective, of}], left_out}` of the open indices whose names match; `left_out`: how many more there are."""
    params = {"flat_settings": True, "expand_wildcards": "open"}
    described = await wire.ask("GET", path_of(match), params=params, absent={})
    listed = await wire.ask("GET", "/_index_template", absent={})
    templates = {one["name"]: one["index_template"] for one in listed.get("index_templates", ())}
    names = sorted(name for name in described if not name.startswith("."))
    chosen = {name: winner(templates, name) for name in names[:MOST_INDICES]}
    given = await _given(wire, sorted({one for one in chosen.values() if one is not None}))
    rows = [_row(name, described[name], template, given.get(template or "")) for name, template in chosen.items()]
    told = [_summary(name, templates[name], rows) for name in sorted(given)]
    return {"indices": rows, "templates": told, "left_out": max(0, len(names) - MOST_INDICES)}


def winner(templates: Mapping[str, Template], index: str) -> str | None:
    """The template by which an index of this name is made: of those that match, the one of highest priority."""
    matching = [
        name
        for name, one in templates.items()
        if any(fnmatchcase(index, _literal(pattern)) for pattern in one["index_patterns"])
    ]
    return max(matching, key=lambda name: int(templates[name].get("priority", 0)), default=None)


def _literal(pattern: str) -> str:
    """Only `*` means something to the server."""
    return pattern.replace("[", "[[]").replace("?", "[?]")


async def _given(wire: Wire, names: Sequence[str]) -> dict[str, Body]:
    """Template → what it would give to an index that is made now."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(name: str) -> Body:
        async with gate:
            answer = await wire.ask("POST", path_of("_index_template", "_simulate", name))
        found = answer["template"]
        settings = prefixed(flattened(found.get("settings", {})))
        return Body(settings, found.get("mappings", {}), found.get("aliases", {}))

    return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))


def _row(index: str, document: Mapping[str, Any], template: str | None, given: Body | None) -> dict[str, Any]:
    settings, mappings, aliases = document["settings"], document["mappings"], document["aliases"]
    alias, mark = named(index, document), mark_of(mappings)
    differs = [] if given is None else [one.path for one in differences(given, settings, mappings, aliases)]
    return {
        "index": index,
        **({"alias": alias} if alias != index else {}),
        **({"phase": mark.phase} if mark is not None else {}),
        "template": template,
        "policy": settings.get(POLICY),
        "follows": template is not None and not differs,
        "differs": differs[:MOST_PATHS],
    }


def _summary(name: str, template: Template, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    mine = [row for row in rows if row["template"] == name]
    return {
        "template": name,
        "version": template.get("version"),
        "composed_of": list(template.get("composed_of", ())),
        "effective": sum(row["follows"] for row in mine),
        "of": len(mine),
    }

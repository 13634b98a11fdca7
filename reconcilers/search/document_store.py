"""Documents on the server: each kind listed once for all that are asked for, put and removed. I/O.

A table says for each kind where its documents are, how they are listed, and in which form they are compared.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from reconcilers.contract import BackendError, ExternalId, Fence, Outcome, TerminalError
from reconcilers.search import checking, shadow
from reconcilers.search.definition import TIER, flattened
from reconcilers.search.documents import (
    CLUSTER,
    CLUSTER_SETTINGS,
    COMPONENT_TEMPLATE,
    INDEX_TEMPLATE,
    LIFECYCLE,
    PIPELINE,
    REPOSITORY,
    SCRIPT,
    SYNONYMS,
    Document,
    Held,
    PutDocument,
    RemoveDocument,
)
from reconcilers.search.wire import Refused, Wire, done, path_of

REMEMBERED: Final = 2_000
_DATES: Final = ("created_date", "created_date_millis", "modified_date", "modified_date_millis")

Raw = Mapping[str, Any]
Listing = Callable[[Wire, list[str]], Awaitable[dict[str, Raw]]]


@dataclass(frozen=True, slots=True)
class Place:
    """One kind of document."""

    path: tuple[str, ...]
    listing: Listing
    simulated: bool = False
    """Compared in the form that `_simulate` gives."""
    in_part: bool = False


async def _components(wire: Wire, _names: list[str]) -> dict[str, Raw]:
    answer = await wire.ask("GET", "/_component_template")
    return {row["name"]: row["component_template"] for row in answer["component_templates"]}


async def _templates(wire: Wire, _names: list[str]) -> dict[str, Raw]:
    answer = await wire.ask("GET", "/_index_template")
    return {row["name"]: row["index_template"] for row in answer["index_templates"]}


async def _pipelines(wire: Wire, _names: list[str]) -> dict[str, Raw]:
    found: dict[str, Raw] = await wire.ask("GET", "/_ingest/pipeline", absent={})
    return found


async def _scripts(wire: Wire, _names: list[str]) -> dict[str, Raw]:
    """There is no list of them but in the cluster state."""
    params = {"filter_path": "metadata.stored_scripts"}
    answer = await wire.ask("GET", "/_cluster/state/metadata", params=params)
    found: dict[str, Raw] = answer.get("metadata", {}).get("stored_scripts", {})
    return found


async def _synonyms(wire: Wire, names: list[str]) -> dict[str, Raw]:
    """Of these, or of all of them."""
    found: dict[str, Raw] = {}
    for name in names or await _synonym_sets(wire):
        answer = await wire.ask("GET", path_of("_synonyms", name), params={"size": 10_000}, absent=None)
        if answer is not None:
            rows = sorted(answer["synonyms_set"], key=lambda row: row["id"])
            found[name] = {"synonyms_set": rows}
    return found


async def _synonym_sets(wire: Wire) -> list[str]:
    answer = await wire.ask("GET", "/_synonyms", params={"size": 10_000}, absent={"results": []})
    return [row["synonyms_set"] for row in answer["results"]]


async def _policies(wire: Wire, _names: list[str]) -> dict[str, Raw]:
    answer = await wire.ask("GET", "/_ilm/policy", absent={})
    return {name: {"policy": row["policy"]} for name, row in answer.items()}


async def _repositories(wire: Wire, _names: list[str]) -> dict[str, Raw]:
    answer = await wire.ask("GET", "/_snapshot", absent={})
    return {name: {"type": row["type"], **_under("settings", row["settings"])} for name, row in answer.items()}


async def _cluster(wire: Wire, _names: list[str]) -> dict[str, Raw]:
    answer = await wire.ask("GET", "/_cluster/settings", params={"flat_settings": True})
    return {CLUSTER: answer["persistent"]}


PLACES: Final[Mapping[str, Place]] = {
    COMPONENT_TEMPLATE: Place(("_component_template",), _components, simulated=True),
    INDEX_TEMPLATE: Place(("_index_template",), _templates, simulated=True),
    PIPELINE: Place(("_ingest", "pipeline"), _pipelines),
    SCRIPT: Place(("_scripts",), _scripts),
    SYNONYMS: Place(("_synonyms",), _synonyms),
    LIFECYCLE: Place(("_ilm", "policy"), _policies, in_part=True),
    REPOSITORY: Place(("_snapshot",), _repositories, in_part=True),
    CLUSTER_SETTINGS: Place(("_cluster", "settings"), _cluster, in_part=True),
}


class Documents:
    """The documents of one cluster."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._forms: dict[str, Mapping[str, Any]] = {}
        self._checked: dict[str, str] = {}

    async def observe(self, wanted: Mapping[ExternalId, Document | None]) -> dict[ExternalId, Any]:
        """All of one kind, by one request."""
        kind = next(iter(wanted)).setting_type
        place = PLACES[kind]
        listed = await place.listing(self._wire, [external.name for external in wanted])
        found: dict[ExternalId, Any] = {}
        for external, desired in wanted.items():
            held = await self._held(external, desired, listed.get(external.name))
            if held is not None:
                found[external] = held
        return found

    async def listed(self, kind: str) -> Mapping[str, Raw]:
        """All of a kind, without the dates that the server adds."""
        found = await PLACES[kind].listing(self._wire, [])
        return {name: {k: v for k, v in raw.items() if k not in _DATES} for name, raw in found.items()}

    async def _held(
        self, external: ExternalId, desired: Document | None, raw: Raw | None
    ) -> Held | BackendError | None:
        place = PLACES[external.setting_type]
        try:
            if desired is not None:
                await self._check(external.setting_type, desired)
            if raw is None:
                return None
            parts = await self._form(place, {k: v for k, v in raw.items() if k not in _DATES}, lenient=True)
            wanted = {} if desired is None else await self._form(place, _declared(external, desired))
            return Held(parts, wanted, place.in_part)
        except TerminalError as exc:
            return exc

    async def _check(self, kind: str, desired: Document) -> None:
        """Assertions, remembered by what they are about. Raises `TerminalError` AssertionFailed."""
        if not desired.checks:
            return
        key = f"{kind} {desired!r}"
        if key not in self._checked:
            check = checking.pipeline if kind == PIPELINE else checking.synonyms
            if len(self._checked) >= REMEMBERED:
                self._checked.clear()
            self._checked[key] = await check(self._wire, desired.body, desired.checks)
        if self._checked[key]:
            raise TerminalError(self._checked[key], reason="AssertionFailed")

    async def _form(self, place: Place, document: Mapping[str, Any], *, lenient: bool = False) -> Mapping[str, Any]:
        """The form in which two documents are compared."""
        if not place.simulated:
            return document
        key = json.dumps(document, sort_keys=True)
        if key not in self._forms:
            if len(self._forms) >= REMEMBERED:
                self._forms.clear()
            self._forms[key] = await self._simulated(document, lenient=lenient)
        return self._forms[key]

    async def _simulated(self, document: Mapping[str, Any], *, lenient: bool) -> Mapping[str, Any]:
        template = document.get("template", {})
        rest = {name: part for name, part in document.items() if name != "template" and part not in ([], None)}
        if isinstance(rest.get("index_patterns"), str):
            rest["index_patterns"] = [rest["index_patterns"]]
        try:
            body = await shadow.simulated(self._wire, template, tuple(document.get("composed_of", ())))
        except TerminalError:
            if not lenient:
                raise
            return {
                **rest,
                "template": template,
            }  # what is there isn't valid any more: it differs, whatever is declared
        settings = {name: value for name, value in body.settings.items() if name != TIER}
        return {**rest, "settings": settings, "mappings": body.mappings, "aliases": body.aliases}

    async def put(self, step: PutDocument, fence: Fence) -> Outcome:
        """Put it in its place."""
        kind, name, body = step.external.setting_type, step.external.name, dict(step.document.body)
        if kind == CLUSTER_SETTINGS:
            await self._wire.send(fence, "PUT", "/_cluster/settings", {"persistent": body})
            return done()
        path = (*PLACES[kind].path, name)
        if kind == SCRIPT:
            # Without a context the server stores what doesn't compile.
            context = (step.document.context,) if step.document.context else ()
            await self._wire.send(fence, "PUT", path_of(*path, *context), {"script": body})
            return done()
        await self._wire.send(fence, "PUT", path_of(*path), body)
        if kind == REPOSITORY:
            verified = await self._wire.ask("POST", path_of(*path, "_verify"))
            return done(nodes=len(verified.get("nodes", {})))
        return done()

    async def remove(self, step: RemoveDocument, fence: Fence) -> Outcome:
        """Remove it; the server refuses what is in use."""
        path = path_of(*PLACES[step.external.setting_type].path, step.external.name)
        try:
            await self._wire.send(fence, "DELETE", path, absent=None)
        except Refused as exc:
            raise TerminalError(exc.message, reason="InUse") from exc
        return done()


def _declared(external: ExternalId, desired: Document) -> Mapping[str, Any]:
    """The declaration in the form of the listing."""
    if external.setting_type == REPOSITORY:
        return {"type": desired.body["type"], **_under("settings", desired.body["settings"])}
    return desired.body


def _under(prefix: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}/{name}": value for name, value in flattened(settings).items()}

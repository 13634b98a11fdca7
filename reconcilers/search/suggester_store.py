"""The sub-fields that suggesters need. I/O."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from reconcilers.contract import BackendError, ExternalId, Fence, Outcome, TerminalError
from reconcilers.search import shadow
from reconcilers.search.generations import Generation, serving
from reconcilers.search.indices import Indices
from reconcilers.search.suggesters import PutSubfield, SeenSuggester, Suggester, field_at
from reconcilers.search.wire import Wire, done, path_of


class Suggesters:
    """The suggesters of one cluster."""

    def __init__(self, wire: Wire, indices: Indices) -> None:
        self._wire = wire
        self._indices = indices
        self._forms: dict[str, Mapping[str, Any] | None] = {}

    async def observe(self, wanted: Mapping[ExternalId, Suggester | None]) -> dict[ExternalId, Any]:
        """One request for all indices; the server's form of each sub-field is remembered."""
        aliases = sorted({desired.alias for desired in wanted.values() if desired is not None})
        described = await self._indices.described(aliases) if aliases else {}
        found: dict[ExternalId, Any] = {}
        for external, desired in wanted.items():
            if desired is not None:
                found[external] = await self._seen(desired, serving(desired.alias, described.get(desired.alias, ())))
        return found

    async def _seen(self, desired: Suggester, holds: Generation | None) -> SeenSuggester | BackendError:
        if holds is None:
            return TerminalError(f"there is no index {desired.alias}", reason="IndexNotFound")
        field = field_at(holds.mappings, desired.field)
        if field is None:
            return SeenSuggester(holds.name, None)
        if desired.mapping is None:
            return SeenSuggester(holds.name, field.get("type"))
        try:
            wanted = await self._form(desired.mapping, holds)
        except TerminalError as exc:
            return exc
        return SeenSuggester(holds.name, field.get("type"), field.get("fields", {}).get(desired.subfield), wanted)

    async def _form(self, mapping: Mapping[str, Any], holds: Generation) -> Mapping[str, Any] | None:
        """With the analysis of the index, which the sub-field may name."""
        analysis = {name: value for name, value in holds.settings.items() if name.startswith("index.analysis.")}
        key = json.dumps([mapping, analysis], sort_keys=True)
        if key not in self._forms:
            template = {"settings": analysis, "mappings": {"properties": {"f": dict(mapping)}}}
            body = await shadow.simulated(self._wire, template)
            self._forms[key] = body.mappings["properties"]["f"]
        return self._forms[key]

    async def put(self, step: PutSubfield, fence: Fence) -> Outcome:
        """A field's parameters are repeated, because leaving one out would change it."""
        described = await self._wire.ask("GET", path_of(step.index, "_mapping"))
        field = field_at(described[step.index]["mappings"], step.field)
        if field is None:
            raise TerminalError(f"{step.index} has no field {step.field}", reason="FieldNotFound")
        document: dict[str, Any] = {
            **{name: value for name, value in field.items() if name != "properties"},
            "fields": {**field.get("fields", {}), step.subfield: dict(step.mapping)},
        }
        for part in reversed(step.field.split(".")):
            document = {"properties": {part: document}}
        await self._wire.send(fence, "PUT", path_of(step.index, "_mapping"), document)
        params = {"conflicts": "proceed", "wait_for_completion": False, "slices": "auto", "refresh": True}
        answer = await self._wire.send(fence, "POST", path_of(step.index, "_update_by_query"), params=params)
        return done(task=answer["task"])

"""Sets of synonyms on a server without the synonyms API: kept in a component template, given inline to the indices. I/O.

Some builds answer for `_synonyms` and refuse every set, because a module is missing. There a set stands as a filter in the
component template `coreplane-synonyms-NAME`, where it belongs to the server, survives the daemon, and index templates may be
composed of it too. What an index declares as `synonyms_set: NAME` is given to the server as the rules themselves; when the
set changes, the index differs from its declaration, and is reopened or migrated as for any other change of its analysis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from reconcilers.contract import BackendError, ExternalId, Fence, Outcome, TerminalError, TransientError
from reconcilers.search import checking
from reconcilers.search.definition import Body, Definition, component_of
from reconcilers.search.documents import Document, Held, PutDocument, RemoveDocument, rule_id
from reconcilers.search.wire import Refused, Wire, done, path_of

PREFIX: Final = "coreplane-synonyms-"
KIND: Final = "synonym_graph"
RETRY_S: Final = 5.0
REMEMBERED: Final = 200
_SET: Final = ".synonyms_set"
_ONLY_WITH_SETS: Final = ("updateable",)

Sets = Mapping[str, Sequence[str]]
"""Name → rules."""


class SynonymSets:
    """The sets of one cluster."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.is_inline = False
        """True when the server can't keep sets by itself."""
        self._faults: dict[str, str] = {}

    async def observe(self, wanted: Mapping[ExternalId, Document | None]) -> dict[ExternalId, Any]:
        """All by one request."""
        sets = await self.listed()
        found: dict[ExternalId, Any] = {}
        for external, desired in wanted.items():
            held = await self._held(external.name, desired, sets)
            if held is not None:
                found[external] = held
        return found

    async def _held(self, name: str, desired: Document | None, sets: Sets) -> Held | BackendError | None:
        if desired is not None:
            wrong = await self._fault(desired)
            if wrong:
                return TerminalError(wrong, reason="AssertionFailed")
        if name not in sets:
            return None
        return Held({"rules": sorted(sets[name])}, {} if desired is None else {"rules": sorted(rules_of(desired))})

    async def _fault(self, desired: Document) -> str:
        """Why the rules or an assertion don't hold; remembered, as the server says the same every time."""
        key = repr(desired)
        if key not in self._faults:
            if len(self._faults) >= REMEMBERED:
                self._faults.clear()
            self._faults[key] = await checking.synonyms(self._wire, desired.body, desired.checks)
        return self._faults[key]

    async def listed(self) -> dict[str, list[str]]:
        """Name → rules."""
        answer = await self._wire.ask("GET", f"/_component_template/{PREFIX}*", absent={})
        found = {}
        for row in answer.get("component_templates", ()):
            name = row["name"].removeprefix(PREFIX)
            index = row["component_template"]["template"].get("settings", {}).get("index", {})
            part = index.get("analysis", {}).get("filter", {}).get(name, {})
            found[name] = [str(rule) for rule in part.get("synonyms", ())]
        return found

    async def raw(self) -> dict[str, dict[str, Any]]:
        """The sets as the API would list them."""
        rows = {
            name: [{"id": rule_id(rule), "synonyms": rule} for rule in rules]
            for name, rules in (await self.listed()).items()
        }
        return {name: {"synonyms_set": found} for name, found in rows.items()}

    async def put(self, step: PutDocument, fence: Fence) -> Outcome:
        """The filter is called as the set."""
        name = step.external.name
        part = {"type": KIND, "synonyms": rules_of(step.document)}
        body = {"template": {"settings": {"analysis": {"filter": {name: part}}}}, "_meta": {"managed": True}}
        await self._wire.send(fence, "PUT", path_of("_component_template", PREFIX + name), body)
        return done()

    async def remove(self, step: RemoveDocument, fence: Fence) -> Outcome:
        """Indices keep the rules that they were given; the server refuses while an index template is composed of it."""
        try:
            path = path_of("_component_template", PREFIX + step.external.name)
            await self._wire.send(fence, "DELETE", path, absent=None)
        except Refused as exc:
            raise TerminalError(exc.message, reason="InUse") from exc
        return done()

    # --- indices that use them -----------------------------------------------------------------------------------------

    async def sets_for(self, wanted: Sequence[Definition | None]) -> Sets:
        """What the declarations may name; nothing is asked when nobody names any, or the server does it."""
        named = any(one is not None and sets_named(one.body) for one in wanted)
        return await self.listed() if self.is_inline and named else {}

    def resolved(self, body: Body, sets: Sets) -> Body:
        """The body with the rules in the places of the sets. Raises `TransientError` SynonymsMissing."""
        if not self.is_inline or not sets_named(body):
            return body
        settings = dict(body.settings)
        for setting, name in sets_named(body).items():
            if name not in sets:
                message = f"the set of synonyms {name} isn't there"
                raise TransientError(message, reason="SynonymsMissing", retry_after_s=RETRY_S)
            component = str(component_of(setting))
            del settings[setting]
            for other in _ONLY_WITH_SETS:
                settings.pop(component + other, None)
            settings[component + "synonyms"] = list(sets[name])
        return replace(body, settings=settings)


def sets_named(body: Body) -> dict[str, str]:
    """Setting of a filter → the set that it names."""
    return {
        setting: str(value)
        for setting, value in body.settings.items()
        if setting.endswith(_SET) and component_of(setting) is not None
    }


def rules_of(document: Document) -> list[str]:
    """The rules of a set as it is declared."""
    return [str(row["synonyms"]) for row in document.body["synonyms_set"]]

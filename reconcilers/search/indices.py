"""Indices on the server: observed many at once, made, changed and removed. I/O.

One `GET a,a-g*,b,b-g*…` answers settings, mappings and aliases of all generations; only what differs costs more. The
server's canonical form of a declaration is remembered by its digest, a verdict by what it was asked about.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from reconcilers.contract import (
    BackendError,
    Discovered,
    ExternalId,
    Fence,
    Outcome,
    TerminalError,
    TransientError,
)
from reconcilers.discovery import matches, setting_name
from reconcilers.search import shadow
from reconcilers.search.copying import Copies
from reconcilers.search.definition import TIER, Body, Definition, differences, digest_of, makeable
from reconcilers.search.generations import (
    Generation,
    Mark,
    alias_of_generation,
    described_as,
    generation,
    marked,
    number_of,
    serving,
)
from reconcilers.search.migrating import unmarked
from reconcilers.search.model import ObservedIndex, Verdict
from reconcilers.search.steps import BackfillFields, ChangeIndex, CreateIndex, DropIndex, OpenIndex, ReopenIndex
from reconcilers.search.synonym_sets import Sets, SynonymSets, sets_named
from reconcilers.search.wire import Refused, Wire, done, path_of

NAMES_AT_ONCE: Final = 60
"""Names in one request: its first line is limited to 4 KiB."""
AT_ONCE: Final = 8
REMEMBERED: Final = 2_000


@dataclass(frozen=True, slots=True)
class Around:
    """What indices refer to, as it is now."""

    pipelines: frozenset[str] | None
    """Their names; None when nobody names one."""
    synonyms: Sets
    """Sets that are given to indices inline."""


class Indices:
    """The indices of one cluster."""

    def __init__(self, wire: Wire, copies: Copies, synonyms: SynonymSets) -> None:
        self._wire = wire
        self._synonyms = synonyms
        self._copies = copies
        self._canonical: dict[str, Body | TerminalError] = {}
        self._verdicts: dict[str, Verdict] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def observe(self, wanted: Mapping[ExternalId, Definition | None]) -> dict[ExternalId, Any]:
        """All generations of all aliases that are asked for."""
        described = await self.described([external.name for external in wanted])
        around = Around(await self._pipelines(wanted), await self._synonyms.sets_for(list(wanted.values())))
        looks = [
            self._look(external, desired, described.get(external.name, ()), around)
            for external, desired in wanted.items()
        ]
        found = await asyncio.gather(*looks)
        return {external: one for external, one in zip(wanted, found, strict=True) if one is not None}

    async def described(self, names: Sequence[str]) -> dict[str, tuple[Generation, ...]]:
        """Alias → its generations, by number."""
        params = {
            "flat_settings": True,
            "ignore_unavailable": True,
            "allow_no_indices": True,
            "expand_wildcards": "all",
        }
        found: dict[str, list[Generation]] = defaultdict(list)
        known = set(names)
        for at in range(0, len(names), NAMES_AT_ONCE):
            asked = [part for name in names[at : at + NAMES_AT_ONCE] for part in (name, f"{name}-g*")]
            answer = await self._wire.ask("GET", path_of(",".join(asked)), params=params, absent={})
            for index, document in answer.items():
                aliases = {*document.get("aliases", {}), index, alias_of_generation(index) or index} & known
                for alias in aliases:
                    one = generation(alias, index, document)
                    if one is not None and one.name not in {other.name for other in found[alias]}:
                        found[alias].append(one)
        await self._add_foreign(found, params)
        return {alias: tuple(sorted(ones, key=lambda one: (one.number, one.name))) for alias, ones in found.items()}

    async def _add_foreign(self, found: Mapping[str, list[Generation]], params: Mapping[str, Any]) -> None:
        """Indices of other names that somebody's alias stood for before a generation was made from them."""
        sources = {
            one.mark.source: alias
            for alias, ones in found.items()
            for one in ones
            if one.mark.source and number_of(alias, one.mark.source) is None
        }
        known = {one.name for ones in found.values() for one in ones}
        names = sorted(sources.keys() - known)
        if not names:
            return
        answer = await self._wire.ask("GET", path_of(",".join(names)), params=params, absent={})
        for name, document in answer.items():
            one = described_as(name, 0, document)
            found[sources[name]].append(one)

    async def _look(
        self,
        external: ExternalId,
        desired: Definition | None,
        generations: tuple[Generation, ...],
        around: Around,
    ) -> ObservedIndex | BackendError | None:
        holds = serving(external.name, generations)
        if desired is None:
            return ObservedIndex(holds, generations) if generations else None
        async with self._gate:
            try:
                wanted = await self.canonical(desired, around.synonyms)
                if not generations:
                    return None
                seen = ObservedIndex(holds, generations, wanted)
                return await self._compared(desired, wanted, seen, around.pipelines)
            except (TerminalError, TransientError) as exc:
                return exc

    async def _compared(
        self, desired: Definition, wanted: Body, seen: ObservedIndex, pipelines: frozenset[str] | None
    ) -> ObservedIndex:
        holds, building = seen.serving, seen.building
        verdict = copy = feed = None
        well = True
        if holds is not None and differences(wanted, holds.settings, holds.mappings, holds.aliases):
            verdict = await self._verdict(wanted, holds)
        if building is not None:
            feed = self._copies.feed(building)
            if building.mark.phase == "copying":
                copy = await self._copies.copy(building)
            elif building.mark.phase == "verified" and holds is not None:
                well = await self._is_well(building, holds)
        missing = _missing(desired, pipelines)
        return ObservedIndex(holds, seen.generations, wanted, verdict, copy, feed, well, missing)

    async def canonical(self, desired: Definition, synonyms: Sets) -> Body:
        """The declaration in the server's words. Raises `TerminalError` InvalidDefinition."""
        body = self._synonyms.resolved(desired.body, synonyms)
        digest = desired.digest if body is desired.body else digest_of(body)
        key = f"{digest} {json.dumps(dict(desired.body.aliases), sort_keys=True)}"
        known = self._canonical.get(key)
        if known is None:
            known = await self._simulated(body)
            _bounded(self._canonical)
            self._canonical[key] = known
        if isinstance(known, TerminalError):
            raise known
        return known

    async def _simulated(self, body: Body) -> Body | TerminalError:
        try:
            return await shadow.canonical(self._wire, body)
        except TerminalError as exc:
            if exc.reason != "InvalidDefinition":
                raise
            return exc

    async def _verdict(self, wanted: Body, held: Generation) -> Verdict:
        text = json.dumps([digest_of(wanted), held.name, dict(held.settings), dict(held.mappings)], sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        known = self._verdicts.get(key)
        if known is None:
            known = await shadow.verdict(self._wire, wanted, held)
            _bounded(self._verdicts)
            self._verdicts[key] = known
        return known

    async def _is_well(self, building: Generation, holds: Generation) -> bool:
        """True when the new generation has as many copies as the old one, or all that it wants."""
        health = await self._wire.ask(
            "GET", path_of("_cluster", "health", f"{building.name},{holds.name}"), params={"level": "indices"}
        )
        mine, theirs = health["indices"][building.name], health["indices"][holds.name]
        if mine["status"] == "green" or mine["active_shards"] >= theirs["active_shards"]:
            return True
        return bool(mine["initializing_shards"] == 0 and mine["active_primary_shards"] == mine["number_of_shards"])

    async def _pipelines(self, wanted: Mapping[ExternalId, Definition | None]) -> frozenset[str] | None:
        """Names of the pipelines there are, when anybody names one."""
        if not any(one is not None and _named_pipelines(one) for one in wanted.values()):
            return None
        return frozenset(await self._wire.ask("GET", "/_ingest/pipeline", params={"summary": True}, absent={}))

    async def discover(self, match: str) -> list[Discovered]:
        """What has a name that matches, by alias where there is one; the server's own and unfinished generations aren't."""
        answer = await self._everything()
        shared = Counter(alias for document in answer.values() for alias in document.get("aliases", {}))
        named = [(name, document) for index, document in answer.items() if (name := _name_of(index, document))]
        return [_declared(name, document, shared) for name, document in named if matches(name, match)]

    async def mapped(self) -> dict[str, Mapping[str, Any]]:
        """The mappings of what serves, by alias where there is one."""
        answer = await self._everything()
        return {name: one.get("mappings", {}) for index, one in answer.items() if (name := _name_of(index, one))}

    async def _everything(self) -> dict[str, Mapping[str, Any]]:
        params = {"flat_settings": True, "expand_wildcards": "open,closed"}
        answer = await self._wire.ask("GET", "/*", params=params, absent={})
        return dict(sorted(answer.items()))

    # --- steps ---------------------------------------------------------------------------------------------------------

    async def create(self, step: CreateIndex, fence: Fence) -> Outcome:
        """The first generation with its aliases, at once."""
        meta = marked(step.body.mappings.get("_meta"), Mark("serving", step.digest))
        sets = await self._synonyms.listed() if self._synonyms.is_inline and sets_named(step.body) else {}
        settings = self._synonyms.resolved(step.body, sets).settings
        body = shadow.template_of(
            Body(settings, {**step.body.mappings, "_meta": meta}, {**step.body.aliases, step.external.name: {}})
        )
        await self._wire.send(fence, "PUT", path_of(step.index), body)
        return done(index=step.index)

    async def change(self, step: ChangeIndex, fence: Fence) -> Outcome:
        """Settings first: a new field may use what comes with them."""
        if step.settings:
            await self._wire.send(fence, "PUT", path_of(step.index, "_settings"), dict(step.settings))
        if step.mappings:
            await self._wire.send(fence, "PUT", path_of(step.index, "_mapping"), await self._remarked(step))
        if step.aliases:
            actions = [{"add": {"index": step.index, "alias": a, **props}} for a, props in step.aliases.items()]
            await self._wire.send(fence, "POST", "/_aliases", {"actions": actions})
        return done()

    async def _remarked(self, step: ChangeIndex) -> dict[str, Any]:
        """The mapping to put; `_meta` is replaced as a whole, so our mark goes with it."""
        if "_meta" not in step.mappings:
            return dict(step.mappings)
        mark = await self._copies.mark_of(step.index)
        return {**step.mappings, "_meta": marked(step.mappings["_meta"], mark)}

    async def reopen(self, step: ReopenIndex, fence: Fence) -> Outcome:
        """The server closes, changes and opens in one request."""
        params = {"reopen": True}
        await self._wire.send(fence, "PUT", path_of(step.index, "_settings"), dict(step.settings), params=params)
        return done()

    async def open(self, step: OpenIndex, fence: Fence) -> Outcome:
        """Open it."""
        await self._wire.send(fence, "POST", path_of(step.index, "_open"))
        return done()

    async def backfill(self, step: BackfillFields, fence: Fence) -> Outcome:
        """A task of the server's; searches find old documents by the new fields when it is done."""
        params = {"conflicts": "proceed", "wait_for_completion": False, "slices": "auto"}
        answer = await self._wire.send(fence, "POST", path_of(step.index, "_update_by_query"), params=params)
        return done(task=answer["task"], fields=list(step.fields))

    async def drop(self, step: DropIndex, fence: Fence) -> Outcome:
        """All generations."""
        for index in step.indices:
            self._copies.forget(index)
            try:
                await self._wire.send(fence, "DELETE", path_of(index), absent=None)
            except Refused as exc:
                raise TerminalError(f"{index}: {exc.message}", reason="Refused") from exc
        return done()


def _name_of(index: str, document: Mapping[str, Any]) -> str | None:
    """What its declaration is called; None for what is nobody's to declare."""
    if index.startswith((".", shadow.SHADOW)):
        return None
    alias = alias_of_generation(index)
    return index if alias is None else alias if alias in document.get("aliases", {}) else None


def _declared(name: str, document: Mapping[str, Any], shared: Mapping[str, int]) -> Discovered:
    """The declaration of an index as it is; aliases that it shares with others are declared by themselves."""
    settings = {
        key.removeprefix("index."): value for key, value in makeable(document["settings"]).items() if key != TIER
    }
    value: dict[str, Any] = {"index": name, "settings": settings, "mappings": unmarked(document.get("mappings", {}))}
    aliases = {
        alias: {key: part for key, part in properties.items() if key != "is_write_index"}
        for alias, properties in document.get("aliases", {}).items()
        if alias != name and shared[alias] == 1
    }
    return Discovered(setting_name(name), {**value, **({"aliases": aliases} if aliases else {})})


def _named_pipelines(desired: Definition) -> set[str]:
    named = {desired.body.settings.get(f"index.{kind}_pipeline") for kind in ("default", "final")}
    return {str(name) for name in named if name not in (None, "_none")}


def _missing(desired: Definition, pipelines: frozenset[str] | None) -> tuple[str, ...]:
    return () if pipelines is None else tuple(sorted(_named_pipelines(desired) - pipelines))


def _bounded(remembered: dict[str, Any]) -> None:
    if len(remembered) >= REMEMBERED:
        remembered.clear()

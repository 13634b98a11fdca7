"""Generations of indices: which is live, beginning one, making it the live one, dropping those before. I/O.

Theory of operation. All indices of a projection carry its generation in their names. A rebuild fills the next generation
beside the live one, from the beginning of the journal, and then moves all aliases in one request, which Elasticsearch does
as one change of the cluster's state. The alias `<prefix>-projection` is the only truth about which one is live: readers and
writers ask for it, at most a second late; what they write meanwhile to the one that was is in the next one, too, because
each generation has positions of its own in the journal.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Final

from controlplane.projection.elasticsearch_layout import KINDS, VERSION, Names, generation_of, templates
from controlplane.projection.elasticsearch_wire import Refusal, Wire
from controlplane.projection.ports import StoreUnavailable

LIVE_S: Final = 1.0
"""For so long nobody is asked again which generation is live."""


class Generations:
    """Of one prefix. `pinned`: the one that is meant, whichever is live."""

    def __init__(self, wire: Wire, prefix: str, pinned: int | None) -> None:
        self._wire = wire
        self._prefix = prefix
        self._pinned = pinned
        self._known: tuple[int, float] | None = None
        self._begun: set[int] = set()

    async def current(self) -> Names:
        """The one to read and write; begun if there is none. Raises `StoreUnavailable`."""
        if self._pinned is not None:
            await self._begin(self._pinned)
            return Names(self._prefix, self._pinned)
        if self._known is None or time.monotonic() - self._known[1] > LIVE_S:
            live = await self.live()
            if live is None:
                await self._begin(1, live=True)
                live = await self.live() or 1
            await self._begin(live)
            self._known = live, time.monotonic()
        return Names(self._prefix, self._known[0])

    async def live(self) -> int | None:
        """The generation that the alias names; None before the first."""
        try:
            found = await self._wire.ask("GET", f"/_alias/{self._prefix}-projection")
        except Refusal as exc:
            if exc.status != 404:
                raise
            return None
        return max((generation_of(index) or 0 for index in found), default=None)

    async def identity(self, generation: int) -> str:
        """Different for each generation ever begun, also when its number was used before. Raises `StoreUnavailable`."""
        return str((await self._meta(generation)).get("id", generation))

    async def there(self) -> dict[str, int]:
        """All indices of ours, with their generations."""
        patterns = ",".join(f"{self._prefix}-{kind}-g*" for kind in KINDS)
        found = await self._wire.ask("GET", f"/_resolve/index/{patterns}", params={"expand_wildcards": "open,closed"})
        numbered = {index["name"]: generation_of(index["name"]) for index in found["indices"]}
        return {index: number for index, number in numbered.items() if number is not None}

    async def next(self) -> int:
        """A generation that nothing is in, and never was anything since the last one went live."""
        return max([*(await self.there()).values(), await self.live() or 0]) + 1

    async def make_live(self, generation: int) -> None:
        """Move every alias at once."""
        actions: list[dict[str, Any]] = []
        for index, number in (await self.there()).items():
            alias = Names(self._prefix, number).alias_of(index)
            if number == generation:
                actions.append({"add": {"index": index, "alias": alias}})
            else:
                actions.append({"remove": {"index": index, "alias": alias, "must_exist": False}})
        await self._wire.ask("POST", "/_aliases", {"actions": actions})
        self._known = None

    async def drop(self, *, below: int) -> list[str]:
        """Delete what is of a generation before this one; the indices that went."""
        old = [index for index, number in (await self.there()).items() if number < below]
        for index in old:
            await self.delete(index)
        return old

    async def drop_templates(self) -> None:
        """What new indices are made like; after the last index of ours."""
        for name in templates(self._prefix):
            await self._deleted(f"/_index_template/{name}")

    async def delete(self, index: str) -> None:
        """Delete an index; nothing when it is gone already."""
        await self._deleted(f"/{index}")

    async def add(self, index: str, settings: dict[str, Any]) -> None:
        """Make an index, with its alias if it is of the live generation; nothing when it is there already."""
        names = Names(self._prefix, generation_of(index) or 0)
        is_live = await self.live() == names.generation
        body = {"settings": settings, "aliases": {names.alias_of(index): {}} if is_live else {}}
        await self._create(index, body)

    async def forget(self, generation: int) -> None:
        """Delete all of a generation; it is begun anew when it is used."""
        for index, number in (await self.there()).items():
            if number == generation:
                await self.delete(index)
        self._begun.discard(generation)
        self._known = None

    async def outdated(self) -> int | None:
        """The version of the live mappings when they aren't those of this program; None when all is well."""
        live = await self.live()
        if live is None:
            return None
        version = int((await self._meta(live)).get("version", 0))
        return None if version == VERSION else version

    async def _meta(self, generation: int) -> dict[str, Any]:
        """What was said of a generation when it was begun."""
        await self._begin(generation)
        found = await self._wire.ask("GET", f"/{Names(self._prefix, generation).meta}/_mapping")
        meta: dict[str, Any] = next(iter(found.values()))["mappings"].get("_meta", {})
        return meta

    async def _begin(self, generation: int, *, live: bool = False) -> None:
        """Templates and the index of positions; with the alias only when there was no generation before."""
        if generation in self._begun:
            return
        for name, template in templates(self._prefix).items():
            await self._wire.ask("PUT", f"/_index_template/{name}", template)
        names = Names(self._prefix, generation)
        mappings = {"_meta": {"version": VERSION, "id": uuid.uuid4().hex[:12]}}
        aliases: dict[str, Any] = {names.alias_of(names.meta): {}} if live else {}
        await self._create(names.meta, {"mappings": mappings, "aliases": aliases})
        self._begun.add(generation)

    async def _create(self, index: str, body: dict[str, Any]) -> None:
        try:
            await self._wire.ask("PUT", f"/{index}", body)
        except Refusal as exc:
            if exc.kind != "resource_already_exists_exception":
                raise StoreUnavailable(f"{index} can't be made: {exc}") from exc  # as when there are too many shards

    async def _deleted(self, path: str) -> None:
        try:
            await self._wire.ask("DELETE", path)
        except Refusal as exc:
            if exc.status != 404:
                raise

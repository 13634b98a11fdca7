"""What changes in an index while it is copied, carried over to the new generation: writes and deletes. I/O.

Theory of operation. Sequence numbers of a shard only rise, and every write, update and delete takes one. So what was written
since a checkpoint is a range of `_seq_no`. What was deleted leaves no document, but a hole: the documents that live are
listed once with their numbers, and in every pass a histogram over the numbers shows the buckets that hold fewer documents
than the listing says. Only those are looked at in detail, and what is missing there is confirmed by a realtime get. The cost
grows with the changes, not with the documents.

A document that was copied and deleted before it was listed is a ghost: nobody misses it. So once, after the listing, the
new generation's ids are compared with it.

Note [Versions don't order]: a document that is deleted and made again after `gc_deletes` begins at version 1, so an external
version may be refused as stale. Passes go one after the other and nobody else writes to the new generation, so what comes
later wins: a refused document is written plainly.

Note [Seen under another number]: a document that was overwritten after the checkpoint isn't known under its new number yet.
Deleted before the next pass, it would leave no hole that anybody misses. So it is watched: asked for in every pass until it
is gone, or known.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from reconcilers.contract import Fence, TerminalError, TransientError
from reconcilers.search.model import Feed
from reconcilers.search.wire import Answer, Wire, fault_of, lines, path_of, said, understood

PAGE: Final = 5_000
"""Documents in one page of a listing."""
BATCH: Final = 500
"""Documents in one bulk request."""
MOST_DOCUMENTS: Final = 5_000_000
"""Documents that a listing holds in memory, some 150 bytes each."""
BUDGET_S: Final = 2.0
"""How long one step lists, compares or feeds before it lets others go first."""
MOST_BUCKETS: Final = 30_000
BULK_S: Final = 60.0
ACTIVE: Final = ("STARTED", "RELOCATING")
"""States of a shard that takes operations."""

DocKey = str | tuple[str, str]
"""Id, or (id, routing)."""


def key_of(hit: Mapping[str, Any]) -> DocKey:
    """Identity of a document in a shard."""
    routing = hit.get("_routing")
    return str(hit["_id"]) if routing is None else (str(hit["_id"]), str(routing))


def address(key: DocKey) -> dict[str, str]:
    """As `_mget` takes it."""
    return {"_id": key} if isinstance(key, str) else {"_id": key[0], "routing": key[1]}


@dataclass(slots=True)
class ShardLog:
    """What is known of one shard of the source."""

    live: dict[int, DocKey] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    interval: int = 128
    listed_to: int = -1
    is_listed: bool = False

    def add(self, number: int, key: DocKey) -> None:
        """A document that lives."""
        if number not in self.live:
            bucket = number // self.interval * self.interval
            self.counts[bucket] = self.counts.get(bucket, 0) + 1
        self.live[number] = key

    def drop(self, number: int) -> DocKey:
        """One that doesn't any more, under this number."""
        self.counts[number // self.interval * self.interval] -= 1
        return self.live.pop(number)

    def shrunk(self, found: Mapping[int, int]) -> list[int]:
        """Buckets that hold fewer documents than they did."""
        return [bucket for bucket, count in self.counts.items() if found.get(bucket, 0) < count]


class Feeder:
    """The changes of one generation, carried over to another. Its methods are called one after the other."""

    def __init__(self, wire: Wire, source: str, index: str, checkpoints: Mapping[str, int]) -> None:
        self._wire = wire
        self.source = source
        self.index = index
        self.done = {int(shard): number for shard, number in checkpoints.items()}
        """Shard → sequence number up to which everything is carried over."""
        self._shards: dict[int, ShardLog] = {}
        self._goal: dict[int, int] = {}
        self._compared: dict[int, int] | None = None
        self._known: set[DocKey] = set()
        self._watched: set[DocKey] = set()
        """Documents that live under a number that isn't known yet, or of which nothing is known since a pass broke off."""
        self.state = Feed()
        self.refused: list[str] = []
        """Documents that the new generation doesn't take, as far as it may be told: id and reason."""

    # --- the listing ---------------------------------------------------------------------------------------------------

    async def list_some(self) -> dict[str, Any]:
        """List for a while. What is listed later, is listed as of then."""
        if not self._goal:
            self._goal = await self.checkpoints()
            await self._wire.ask("POST", path_of(self.source, "_refresh"), timeout_s=BULK_S)
            for shard, top in self._goal.items():
                interval = 1 << max(7, (top // MOST_BUCKETS).bit_length())
                self._shards[shard] = ShardLog(interval=interval)
        until = time.monotonic() + BUDGET_S
        for shard, log in self._shards.items():
            while not log.is_listed and time.monotonic() < until:
                await self._list_page(shard, log)
        listed = sum(len(log.live) for log in self._shards.values())
        if listed > MOST_DOCUMENTS:
            message = f"{self.source} holds more than {MOST_DOCUMENTS} documents: migrate it by hand"
            raise TerminalError(message, reason="TooManyDocuments")
        self.state = Feed(listed, all(log.is_listed for log in self._shards.values()))
        return {"listed": listed}

    async def _list_page(self, shard: int, log: ShardLog) -> None:
        hits = await self._page(self.source, shard, log.listed_to, self._goal[shard], source=False)
        for hit in hits:
            log.add(int(hit["sort"][0]), key_of(hit))
        log.listed_to = int(hits[-1]["sort"][0]) if hits else self._goal[shard]
        log.is_listed = len(hits) < PAGE

    async def _page(
        self, index: str, shard: int, after: int, upto: int | None, *, source: bool, size: int = PAGE
    ) -> list[Mapping[str, Any]]:
        span = {"gt": after} | ({"lte": upto} if upto is not None else {})
        body = {
            "size": size,
            "query": {"range": {"_seq_no": span}},
            "sort": [{"_seq_no": "asc"}],
            "_source": source,
            "version": source,
            "track_total_hits": False,
        }
        params = {"preference": f"_shards:{shard}", "request_cache": False}
        answer = await self._wire.ask("POST", path_of(index, "_search"), body, params=params, timeout_s=BULK_S)
        if answer["_shards"]["failed"]:
            raise TransientError(f"{index}: shard {shard} doesn't answer", reason="ShardFailed")
        hits: list[Mapping[str, Any]] = answer["hits"]["hits"]
        return hits

    # --- ghosts --------------------------------------------------------------------------------------------------------

    async def compare_some(self, fence: Fence) -> dict[str, Any]:
        """Look for a while for documents of the new generation that the listing doesn't know and the source hasn't."""
        if self._compared is None:
            await self._wire.ask("POST", path_of(self.index, "_refresh"), timeout_s=BULK_S)
            shards = await self.checkpoints(self.index)
            self._compared = dict.fromkeys(shards, -1)
            self._known = {key for log in self._shards.values() for key in log.live.values()}
        until, removed, is_done = time.monotonic() + BUDGET_S, 0, True
        for shard, after in list(self._compared.items()):
            position: int | None = after
            while position is not None and time.monotonic() < until:
                position, count = await self._compare_page(shard, position, fence)
                removed += count
            self._compared[shard] = position if position is not None else 2**62
            is_done = is_done and position is None
        compared = self.state.compared + 1
        self.state = replace(self.state, compared=compared, is_compared=is_done)
        if is_done:
            self._compared, self._known = None, set()
        return {"compared_part": compared, "ghosts_removed": removed}

    async def _compare_page(self, shard: int, after: int, fence: Fence) -> tuple[int | None, int]:
        if after >= 2**62:
            return None, 0
        hits = await self._page(self.index, shard, after, None, source=False)
        strangers = [key for hit in hits if (key := key_of(hit)) not in self._known]
        gone, living = await self._judged(strangers)
        self._watched |= living
        await self._delete(gone, fence)
        return (int(hits[-1]["sort"][0]) if len(hits) == PAGE else None), len(gone)

    # --- passes --------------------------------------------------------------------------------------------------------

    async def feed(self, fence: Fence, *, budget_s: float = BUDGET_S) -> dict[str, Any]:
        """Passes until one is short, none takes less time than the one before, or the time is up."""
        until = time.monotonic() + budget_s
        written = deleted = 0
        while True:
            before = self.state
            started = time.monotonic()
            more = await self.pass_once(fence)
            took_s = time.monotonic() - started
            written, deleted = written + more[0], deleted + more[1]
            shrinks = not before.passes or took_s < 0.9 * before.last_s
            self.state = replace(before, passes=before.passes + 1, last_s=took_s, shrinks=shrinks)
            if took_s < 0.2 or not shrinks or time.monotonic() > until:
                break
        if self.refused:
            message = f"{self.index} refuses documents: {'; '.join(self.refused[:3])}"
            raise TerminalError(message, reason="DocumentsRefused")
        return {"pass": self.state.passes, "written": written, "deleted": deleted, "last_pass_s": round(took_s, 3)}

    async def pass_once(self, fence: Fence) -> tuple[int, int]:
        """Everything that happened up to now; (written, deleted)."""
        now = await self.checkpoints()
        await self._wire.ask("POST", path_of(self.source, "_refresh"), timeout_s=BULK_S)
        written = 0
        for shard, upto in now.items():
            written += await self._upserts(shard, upto, fence)
        # Also what was just written may be gone by the time of the histogram: only the realtime get tells.
        for shard, upto in now.items():
            await self._watch_vanished(shard, upto)
        gone, living = await self._judged(list(self._watched))
        await self._delete(gone, fence)
        self._watched = living
        self.done = now
        return written, len(gone)

    async def _upserts(self, shard: int, upto: int, fence: Fence) -> int:
        log, position, written = self._shards[shard], self.done.get(shard, -1), 0
        while position < upto:
            hits = await self._page(self.source, shard, position, upto, source=True, size=BATCH)
            for hit in hits:
                log.add(int(hit["sort"][0]), key_of(hit))
            await self.write(hits, fence)
            written += len(hits)
            if len(hits) < BATCH:
                break
            position = int(hits[-1]["sort"][0])
        return written

    async def _watch_vanished(self, shard: int, upto: int) -> None:
        """What isn't there under its number any more is watched until a whole pass has dealt with it."""
        log = self._shards[shard]
        body = {
            "size": 0,
            "track_total_hits": False,
            "query": {"range": {"_seq_no": {"lte": upto}}},
            "aggs": {"h": {"histogram": {"field": "_seq_no", "interval": log.interval, "min_doc_count": 1}}},
        }
        params = {"preference": f"_shards:{shard}", "request_cache": False}
        answer = await self._wire.ask("POST", path_of(self.source, "_search"), body, params=params, timeout_s=BULK_S)
        found = {int(bucket["key"]): int(bucket["doc_count"]) for bucket in answer["aggregations"]["h"]["buckets"]}
        dead: list[int] = []
        for low, high in _joined(log.shrunk(found), log.interval):
            there = await self._numbers(shard, low, min(high, upto + 1))
            dead += [number for number in _between(log, low, min(high, upto + 1)) if number not in there]
        self._watched.update(log.drop(number) for number in dead)

    async def _numbers(self, shard: int, low: int, high: int) -> set[int]:
        """Sequence numbers in use, from `low` up to but without `high`."""
        found: set[int] = set()
        after = low - 1
        while True:
            body = {
                "size": PAGE,
                "query": {"range": {"_seq_no": {"gt": after, "lt": high}}},
                "sort": [{"_seq_no": "asc"}],
                "stored_fields": "_none_",
                "track_total_hits": False,
            }
            params = {"preference": f"_shards:{shard}", "request_cache": False}
            answer = await self._wire.ask(
                "POST", path_of(self.source, "_search"), body, params=params, timeout_s=BULK_S
            )
            page = [int(hit["sort"][0]) for hit in answer["hits"]["hits"]]
            found.update(page)
            if len(page) < PAGE:
                return found
            after = page[-1]

    # --- reading and writing documents ---------------------------------------------------------------------------------

    async def checkpoints(self, index: str | None = None) -> dict[int, int]:
        """Shard → global checkpoint: everything up to it is on all copies."""
        return await checkpoints(self._wire, index or self.source)

    async def _judged(self, keys: Sequence[DocKey]) -> tuple[list[DocKey], set[DocKey]]:
        """Which of the documents the source hasn't, this very moment, and which it has under a number that isn't known. See
        Note [Seen under another number]."""
        gone: list[DocKey] = []
        living: set[DocKey] = set()
        for part in _sliced(keys, 1_000):
            body = {"docs": [address(key) for key in part]}
            answer = await self._wire.ask(
                "POST",
                path_of(self.source, "_mget"),
                body,
                params={"_source": False, "realtime": True},
                timeout_s=BULK_S,
            )
            for key, one in zip(part, answer["docs"], strict=True):
                if "error" in one:
                    raise TransientError(f"{self.source}: {said(one['error'])[1]}", reason="ShardFailed")
                if not one["found"]:
                    gone.append(key)
                elif not any(log.live.get(int(one["_seq_no"])) == key for log in self._shards.values()):
                    living.add(key)
        return gone, living

    async def write(self, hits: Sequence[Mapping[str, Any]], fence: Fence) -> None:
        """Documents as they are in the source. See Note [Versions don't order]."""
        rows = []
        for hit in hits:
            meta = {"_id": hit["_id"], "version": hit["_version"], "version_type": "external_gte"}
            rows.append(({**meta, **_routed(hit)}, hit["_source"]))
        stale = await self._bulk("index", rows, fence)
        if stale:
            again = [({k: v for k, v in rows[i][0].items() if not k.startswith("version")}, rows[i][1]) for i in stale]
            await self._bulk("index", again, fence)

    async def _delete(self, keys: Sequence[DocKey], fence: Fence) -> None:
        for part in _sliced(keys, 1_000):
            rows = [
                ({"_id": one["_id"], **_routed({"_routing": one.get("routing")})}, None) for one in map(address, part)
            ]
            await self._bulk("delete", rows, fence)

    async def _bulk(self, action: str, rows: Sequence[tuple[Mapping[str, Any], Any]], fence: Fence) -> list[int]:
        """Which rows were refused as stale."""
        if not rows:
            return []
        fence.check()
        body = lines(
            part for meta, doc in rows for part in ([{action: meta}] if doc is None else [{action: meta}, doc])
        )
        # One copy is enough, also while plain writers are held (see `generations`).
        params = {"wait_for_active_shards": 1, "pipeline": "_none"}
        answer = understood(
            await self._wire.call("POST", path_of(self.index, "_bulk"), body, params=params, timeout_s=BULK_S)
        )
        stale = []
        for number, item in enumerate(answer["items"]):
            result = item[action]
            if result["status"] == 409:
                stale.append(number)
            elif result["status"] == 404 and action == "index":
                raise TerminalError(f"{self.index} is gone", reason="IndexMissing")
            elif result["status"] >= 400 and result["status"] != 404:
                self._refuse(result)
        return stale

    def _refuse(self, item: Mapping[str, Any]) -> None:
        """Remember a document that isn't taken; raise when it may be taken later, so that the pass is made again."""
        fault = fault_of(Answer(item["status"], {"error": item["error"]}))
        if isinstance(fault, TransientError):
            raise fault
        self.refused.append(f"{item['_id']}: {fault.message}")

    # --- at the switch -------------------------------------------------------------------------------------------------

    async def prepare(self, fence: Fence) -> None:
        """Everything that must precede a pass, for a process that comes new to a migration."""
        while not self.state.is_listed:
            await self.list_some()
        while not self.state.is_compared:
            await self.compare_some(fence)

    async def counts(self) -> tuple[int, int]:
        """Documents of the frozen source and of the new generation."""
        await self._wire.ask("POST", path_of(self.index, "_refresh"), timeout_s=BULK_S)
        old = await self._wire.ask("GET", path_of(self.source, "_count"))
        new = await self._wire.ask("GET", path_of(self.index, "_count"))
        return int(old["count"]), int(new["count"])

    async def equalise(self, fence: Fence) -> dict[str, int]:
        """Compare all ids of the frozen source with those of the new generation, both ways, and mend what differs."""
        theirs = {key async for key in self._keys(self.source)}
        ours = {key async for key in self._keys(self.index)}
        await self._delete(sorted(ours - theirs, key=str), fence)
        missing = sorted(theirs - ours, key=str)
        for part in _sliced(missing, BATCH):
            answer = await self._wire.ask(
                "POST", path_of(self.source, "_mget"), {"docs": [address(key) for key in part]}, timeout_s=BULK_S
            )
            await self.write([one for one in answer["docs"] if one.get("found")], fence)
        return {"extra": len(ours - theirs), "missing": len(missing)}

    async def _keys(self, index: str) -> AsyncIterator[DocKey]:
        for shard in await self.checkpoints(index):
            after = -1
            while True:
                hits = await self._page(index, shard, after, None, source=False)
                for hit in hits:
                    yield key_of(hit)
                if len(hits) < PAGE:
                    break
                after = int(hits[-1]["sort"][0])

    def sample(self, count: int) -> list[DocKey]:
        """Some documents that live, spread evenly over the sequence numbers."""
        keys = [key for log in self._shards.values() for key in log.live.values()]
        step = max(1, len(keys) // max(1, count))
        return keys[::step][:count]


async def checkpoints(wire: Wire, index: str) -> dict[int, int]:
    """Shard → global checkpoint. Raises `TransientError` while a primary isn't there."""
    answer = await wire.ask("GET", path_of(index, "_stats", "docs"), params={"level": "shards"})
    found = reached(answer["indices"].get(index, {}).get("shards", {}))
    settings = await wire.ask(
        "GET", path_of(index, "_settings", "index.number_of_shards"), params={"flat_settings": True}
    )
    if len(found) != int(settings[index]["settings"]["index.number_of_shards"]):
        raise TransientError(f"{index}: not all shards are there", reason="ShardsMissing", retry_after_s=5.0)
    return found


def reached(shards: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[int, int]:
    """Shard → global checkpoint, of the primaries that have started, in the `shards` of `_stats`.

    One that recovers still tells the checkpoint that it had written down: the last operations that it acknowledged are
    beyond it.
    """
    return {
        int(shard): int(copy["seq_no"]["global_checkpoint"])
        for shard, copies in shards.items()
        for copy in copies
        if copy["routing"]["primary"] and copy["routing"]["state"] in ACTIVE and "seq_no" in copy
    }


def _routed(hit: Mapping[str, Any]) -> dict[str, str]:
    return {"routing": hit["_routing"]} if hit.get("_routing") is not None else {}


def _joined(buckets: Iterable[int], interval: int) -> list[tuple[int, int]]:
    """Neighbouring buckets as spans."""
    spans: list[tuple[int, int]] = []
    for low in sorted(buckets):
        if spans and spans[-1][1] == low:
            spans[-1] = (spans[-1][0], low + interval)
        else:
            spans.append((low, low + interval))
    return spans


def _between(log: ShardLog, low: int, high: int) -> list[int]:
    return [number for number in range(low, high) if number in log.live]


def _sliced(keys: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (keys[at : at + size] for at in range(0, len(keys), size))

"""The last status of every key, followed from the journal, for queries and for those who wait for a phase.

Note [A key that moved]. A key whose target changes may change its shard, and shards are read in no order: the old shard's
last record of the key, or its tombstone, may be read after the new shard's first. The newer revision counts, and a
tombstone only for its own shard.

Note [Not understood isn't absent]. A record that can't be read, of a newer version or damaged, says that there was something: the
key's status is unknown until somebody who can has looked again.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator

import structlog

from controlplane.domain.status import KeyStatus, NotUnderstood, understood
from controlplane.log import codec
from controlplane.log.codec import Undecodable
from controlplane.log.ports import Entry, Journal, Place, Stream

_log = structlog.get_logger()

Changed = Callable[[str, KeyStatus | None, KeyStatus | None], None]
"""Called with key, status before and after (None: none). Must not block."""


def read_status(key: str, data: bytes) -> KeyStatus:
    """What a record says. Raises `NotUnderstood`."""
    try:
        return understood(key, codec.decode(data))
    except Undecodable as exc:
        raise NotUnderstood(str(exc)) from exc


class StatusView:
    """Read side of the status stream, all shards."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._statuses: dict[str, KeyStatus] = {}
        self._homes: dict[str, int] = {}
        """Key → shard whose record that is."""
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._listeners: list[Changed] = []

    def listen(self, changed: Changed) -> None:
        """Call `changed` for every status from now on."""
        self._listeners.append(changed)

    async def run(self) -> None:
        """Follow the status stream until the journal is closed."""
        places = {Place(Stream.STATUS, shard): 0 for shard in range(self._journal.shards)}
        async for entries in self._journal.tail(places):
            for entry in entries:
                self._take(entry)
            await asyncio.sleep(0)

    def get(self, key: str) -> KeyStatus | None:
        """The last status of the key, None when it has none."""
        return self._statuses.get(key)

    def all(self) -> Iterator[KeyStatus]:
        """Every status there is."""
        return iter(self._statuses.values())

    async def wait(
        self, key: str, wanted: Callable[[KeyStatus | None], bool], timeout_s: float
    ) -> tuple[bool, KeyStatus | None]:
        """Wait until `wanted(status)`; (False, last status) when it isn't so in time."""
        moved = asyncio.Event()
        self._watchers[key].add(moved)
        try:
            async with asyncio.timeout(timeout_s):
                while not wanted(self._statuses.get(key)):
                    moved.clear()
                    await moved.wait()
        except TimeoutError:
            return False, self._statuses.get(key)
        else:
            return True, self._statuses.get(key)
        finally:
            self._watchers[key].discard(moved)
            if not self._watchers[key]:
                del self._watchers[key]

    def _take(self, entry: Entry) -> None:
        if entry.key.startswith("#"):
            return  # a shard's own record, not a setting's
        before = self._statuses.get(entry.key)
        after = None if entry.data is None else _read(entry, entry.data)
        if (
            before is not None
            and self._homes[entry.key] != entry.shard
            and (after is None or after.revision < before.revision)
        ):
            return  # Note [A key that moved]
        if after is None:
            self._statuses.pop(entry.key, None)
            self._homes.pop(entry.key, None)
        else:
            self._statuses[entry.key] = after
            self._homes[entry.key] = entry.shard
        for changed in self._listeners:
            changed(entry.key, before, after)
        for moved in self._watchers.get(entry.key, ()):
            moved.set()


def _read(entry: Entry, data: bytes) -> KeyStatus:
    """Note [Not understood isn't absent]."""
    try:
        return read_status(entry.key, data)
    except NotUnderstood as exc:
        _log.warning("status not understood", setting=entry.key, shard=entry.shard, offset=entry.offset, error=str(exc))
        return KeyStatus(entry.key)

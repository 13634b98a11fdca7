"""L1: entries in this process, bounded in number and bytes, least recently used out first. No I/O, no clock."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from controlplane.client.cache_codec import Entry


class MemoryLayer:
    """A bounded map of entries with an index of tags. Not for several threads."""

    def __init__(self, max_keys: int, max_bytes: int) -> None:
        self.max_keys = max_keys
        self.max_bytes = max_bytes
        self.size_bytes = 0
        self.evictions = 0
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._tagged: defaultdict[str, set[str]] = defaultdict(set)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def get(self, key: str, now: float) -> Entry | None:
        """The entry while it is usable (fresh or stale)."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if not entry.usable(now):
            self.drop((key,))
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: str, entry: Entry) -> None:
        """Keep the entry; others go when there is no room, and itself when it alone is too big."""
        self.drop((key,))
        self._entries[key] = entry
        self.size_bytes += entry.size_bytes
        for tag in entry.tags:
            self._tagged[tag].add(key)
        while self._entries and (len(self._entries) > self.max_keys or self.size_bytes > self.max_bytes):
            self.drop((next(iter(self._entries)),))
            self.evictions += 1

    def drop(self, keys: Iterable[str]) -> int:
        """Forget keys; how many were there."""
        dropped = 0
        for key in list(keys):
            entry = self._entries.pop(key, None)
            if entry is None:
                continue
            dropped += 1
            self.size_bytes -= entry.size_bytes
            for tag in entry.tags:
                self._untag(tag, key)
        return dropped

    def drop_tags(self, tags: Iterable[str]) -> int:
        """Forget what carries one of the tags."""
        return sum(self.drop(self._tagged.get(tag, ())) for tag in tags)

    def drop_prefix(self, prefix: str) -> int:
        """Forget the keys that begin so."""
        return self.drop(key for key in self._entries if key.startswith(prefix))

    def clear(self) -> int:
        """Forget everything."""
        dropped = len(self._entries)
        self._entries.clear()
        self._tagged.clear()
        self.size_bytes = 0
        return dropped

    def _untag(self, tag: str, key: str) -> None:
        keys = self._tagged[tag]
        keys.discard(key)
        if not keys:
            del self._tagged[tag]

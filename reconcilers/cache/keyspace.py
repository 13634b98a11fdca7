"""Namespaces on a Redis server: registrations, invalidation, and what lies there. I/O, used by `backend`.

Works on the client of one node, the first of a target: that is where a namespace lives (the others are its replicas, or
not part of it). No script works on more than `layout.SLICE` keys, and SCAN goes in steps of SCAN_COUNT, so that nobody
else waits for more than some milliseconds. Everything here may be repeated. Redis Cluster isn't served: a namespace's
keys would be spread over slots, and its scripts span them.

With tags, the server shouldn't evict under an allkeys policy without room to spare: a tag's index is a key like any other,
and what it no longer names is dropped by its lifetime only.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, TypeVar

from redis import exceptions as fault
from redis.asyncio import Redis

from reconcilers.cache.census import Census, Sampled
from reconcilers.cache.namespace import DeregisterNamespace, RegisterNamespace, Registration, parsed
from reconcilers.contract import (
    SUCCEEDED,
    BackendError,
    ExternalId,
    Fence,
    Outcome,
    Step,
    TerminalError,
    TransientError,
    Unreachable,
    failed,
    unknown,
)
from schemas import cache_layout as layout

SCAN_COUNT: Final = 1_000
MAX_SCANS: Final = 2_000
"""Most SCAN steps of one inspection: some 2,000,000 keys looked past."""

T = TypeVar("T")


@contextmanager
def reaching(what: str) -> Iterator[None]:
    """Faults of redis-py as ours."""
    try:
        yield
    except (fault.AuthenticationError, fault.NoPermissionError) as exc:
        raise TerminalError(f"{what}: {exc}", reason="NoPermission") from exc
    except (fault.BusyLoadingError, fault.ReadOnlyError, fault.OutOfMemoryError) as exc:
        raise TransientError(f"{what}: {exc}", reason=type(exc).__name__.removesuffix("Error")) from exc
    except fault.ResponseError as exc:
        raise TerminalError(f"{what}: {exc}", reason="Refused") from exc
    except (fault.RedisError, OSError, TimeoutError) as exc:
        raise Unreachable(f"{what}: {str(exc) or type(exc).__name__}") from exc


def sliced(items: Iterable[T], size: int = layout.SLICE) -> Iterator[list[T]]:
    """Lists of at most `size` items."""
    iterator = iter(items)
    while part := list(islice(iterator, size)):
        yield part


class RedisKeyspace:
    """What lies in one Redis server. The client isn't closed here, and its timeouts bound every call."""

    kind: Final = "redis"

    def __init__(self, client: Redis) -> None:
        self._redis = client
        self._register = client.register_script(layout.REGISTER)
        self._deregister = client.register_script(layout.DEREGISTER)
        self._stamp = client.register_script(layout.STAMP)
        self._drop = client.register_script(layout.DROP)
        self._drop_tagged = client.register_script(layout.DROP_TAGGED)
        self._complete = client.register_script(layout.COMPLETE)

    # Registrations

    async def observe(self, wanted: Iterable[ExternalId]) -> dict[ExternalId, Registration]:
        """The registrations there are, of the prefixes asked for, in one pipeline."""
        asked, found = list(wanted), dict[ExternalId, Registration]()
        for part in sliced(asked):
            pipe = self._redis.pipeline(transaction=False)
            for external in part:
                pipe.hmget(layout.registration_key(external.name), ["definition", "generation"])
            with reaching("reading namespaces"):
                rows = await pipe.execute()
            for external, (document, generation) in zip(part, rows, strict=True):
                if document is not None:
                    found[external] = Registration(parsed(document), int(generation or 0))
        return found

    async def apply(self, steps: Sequence[Step], fence: Fence) -> list[Outcome]:
        """Register and deregister, one script each."""
        return [await self._outcome(step, fence) for step in steps]

    async def _outcome(self, step: Step, fence: Fence) -> Outcome:
        try:
            with reaching(step.summary()):
                return await self._effect(step, fence)
        except Unreachable as exc:
            return unknown(exc)
        except BackendError as exc:
            return failed(exc)

    async def _effect(self, step: Step, fence: Fence) -> Outcome:
        prefix = step.external.name
        keys = [layout.registration_key(prefix), layout.INDEX_KEY]
        if isinstance(step, DeregisterNamespace):
            fence.check()
            await self._deregister(keys=keys, args=[prefix])
            return SUCCEEDED
        if not isinstance(step, RegisterNamespace):
            return failed(TerminalError(f"{step.name} isn't a step of namespaces", reason="UnknownStep"))
        fence.check()
        other = _text(await self._register(keys=keys, args=[prefix, step.definition.document, step.definition.digest]))
        if other:
            msg = f"prefix {prefix!r} overlaps with {other!r} of another namespace: no key may belong to two"
            return failed(TerminalError(msg, reason="PrefixOverlap"))
        return SUCCEEDED

    # Invalidation

    async def stamp(
        self, prefix: str, revision: int, *, tags: Sequence[str] = (), flush: bool = False
    ) -> tuple[int, int]:
        """Begin an invalidation → (stamp, floor): fills of the tags, or all of them, that began before are refused."""
        keys = [layout.registration_key(prefix)] + [layout.tag_tombstone_key(prefix, tag) for tag in tags]
        with reaching("stamping"):
            stamp, floor = await self._stamp(keys=keys, args=[revision, "1" if flush else "0"])
        return int(stamp), int(floor)

    async def drop_keys(self, prefix: str, keys: Sequence[str]) -> int:
        """Drop values, and refuse fills of them that are under way; how many there were."""
        dropped = 0
        for part in sliced(keys):
            names = [name for key in part for name in (prefix + key, layout.tombstone_key(prefix, key))]
            with reaching("dropping keys"):
                dropped += int(await self._drop(keys=[layout.registration_key(prefix), *names]))
        return dropped

    async def tagged(self, prefix: str, tag: str, after: int, upto: int) -> AsyncIterator[list[str]]:
        """Keys with the tag, filled after one stamp and up to the other, in slices. Members may go meanwhile."""
        while True:
            with reaching("reading a tag"):
                rows = await self._redis.zrange(
                    layout.tag_key(prefix, tag),
                    f"({after}",
                    upto,
                    byscore=True,
                    withscores=True,
                    offset=0,
                    num=layout.SLICE,
                )
            if not rows:
                return
            members: list[Any] = [row[0] for row in rows]
            yield list(map(_text, members))
            after = int(rows[-1][1])

    async def drop_tagged(self, prefix: str, tag: str, keys: Sequence[str], values_upto: int, members_upto: int) -> int:
        """Drop those of the keys that weren't filled since: their values, and their membership; how many values."""
        names = [layout.tag_key(prefix, tag)] + [prefix + key for key in keys]
        with reaching("dropping a tag"):
            dropped, _ = await self._drop_tagged(keys=names, args=[values_upto, members_upto, *keys])
        return int(dropped)

    async def drop_prefix(self, prefix: str, begins: str) -> int:
        """Drop the values whose keys begin so ("" for all); how many. SCAN sees every key that was there all the time."""
        dropped = 0
        async for names in self._scan(prefix + begins):
            values = [name for name in names if not layout.bookkeeping(prefix, _text(name))]
            for part in sliced(values):
                with reaching("dropping a prefix"):
                    dropped += int(await self._redis.unlink(*part))
        return dropped

    async def complete(self, prefix: str, revision: int) -> None:
        """End an invalidation."""
        with reaching("completing"):
            await self._complete(keys=[layout.registration_key(prefix)], args=[revision])

    # What lies there

    async def census(self, sample: int, prefix: str | None = None) -> Census:
        """Look at up to `sample` keys: of the prefix, or of all databases' current one at random."""
        with reaching("sampling"):
            total = int(await self._redis.dbsize())
        if prefix is not None:
            names, complete = await self._some_of(prefix, sample)
            return Census(tuple(await self._looked_at(names)), len(names), complete)
        complete = total <= sample
        names = await self._all() if complete else await self._random(sample)
        return Census(tuple(await self._looked_at(names)), total, complete)

    async def _all(self) -> list[str]:
        return list(dict.fromkeys([_text(name) async for names in self._scan("") for name in names]))

    async def _some_of(self, prefix: str, most: int) -> tuple[list[str], bool]:
        names: dict[str, None] = {}
        scans = 0
        async for part in self._scan(prefix):
            names |= dict.fromkeys(map(_text, part))
            scans += 1
            if len(names) >= most or scans >= MAX_SCANS:
                return list(names)[:most], False
        return list(names), True

    async def _random(self, sample: int) -> list[str]:
        names: dict[str, None] = {}
        for part in sliced(range(sample)):
            pipe = self._redis.pipeline(transaction=False)
            for _ in part:
                pipe.randomkey()
            with reaching("sampling"):
                names |= dict.fromkeys(_text(name) for name in await pipe.execute() if name is not None)
        return list(names)

    async def _looked_at(self, names: Sequence[str]) -> list[Sampled]:
        with reaching("sampling"):
            policy = await self._redis.info("memory")
        counted = "lfu" in str(policy.get("maxmemory_policy", ""))
        found: list[Sampled] = []
        for part in sliced(names):
            pipe = self._redis.pipeline(transaction=False)
            for name in part:
                pipe.memory_usage(name)
                pipe.pttl(name)
                pipe.object("FREQ" if counted else "IDLETIME", name)
            with reaching("sampling"):
                rows = await pipe.execute(raise_on_error=False)
            for at, name in enumerate(part):
                one = _sampled(name, rows[3 * at : 3 * at + 3], counted=counted)
                found += [one] if one is not None else []
        return found

    async def _scan(self, begins: str) -> AsyncIterator[list[Any]]:
        cursor = 0
        while True:
            with reaching("scanning"):
                cursor, names = await self._redis.scan(cursor, match=layout.scan_pattern(begins), count=SCAN_COUNT)
            if names:
                yield names
            if not cursor:
                return


def _sampled(name: str, row: Sequence[Any], *, counted: bool) -> Sampled | None:
    """One key's replies; None when it went away meanwhile. Redis answers errors for single commands in place."""
    size_bytes, ttl_ms, use = (None if isinstance(value, Exception) else value for value in row)
    if size_bytes is None or ttl_ms is None or ttl_ms == -2:
        return None
    return Sampled(
        name,
        int(size_bytes),
        None if ttl_ms < 0 else ttl_ms / 1000,
        idle_s=None if counted or use is None else float(use),
        frequency=int(use) if counted and use is not None else None,
    )


def _text(value: Any) -> str:
    # Keys that aren't UTF-8 belong to nobody here; they are shown, never written.
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)

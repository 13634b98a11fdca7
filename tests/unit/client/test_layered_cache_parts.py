"""The parts of LayeredCache that need no server."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.client.cache_batch import Batch, NotLoaded
from controlplane.client.cache_codec import BytesCodec, Entry, MsgpackCodec, entry, pack, unpack
from controlplane.client.cache_config import namespace_config
from controlplane.client.cache_feed import Feed, Invalidation, Listener, invalidation
from controlplane.client.cache_layers import Place, place_at, place_of, shortened
from controlplane.client.cache_memory import MemoryLayer
from controlplane.client.memcached import Reply, address, parse
from controlplane.client.stream import StreamEvent

TAGS = st.lists(
    st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), min_size=1, max_size=20), max_size=5
)


# --- entries -----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200), st.integers(0, 2**40), st.integers(0, 2**40), TAGS)
def test_an_entry_survives_its_envelope(payload: bytes, fresh_ms: int, dead_ms: int, tags: list[str]) -> None:
    held = Entry(payload, fresh_ms / 1000, dead_ms / 1000, tuple(tags))
    assert unpack(pack(held)) == held


@given(st.binary(max_size=60))
def test_foreign_bytes_are_no_entry_or_some_entry_but_never_an_error(raw: bytes) -> None:
    assert raw[:1] == b"\x01" or unpack(raw) is None


def test_an_entry_is_fresh_then_stale_then_dead() -> None:
    held = entry(b"v", 100.0, ttl_s=10, stale_s=5, tags=())
    assert [(held.fresh(now), held.usable(now)) for now in (109.9, 110.0, 114.9, 115.0)] == [
        (True, True),
        (False, True),
        (False, True),
        (False, False),
    ]


def test_a_layer_keeps_nothing_fresh_for_longer_than_it_may() -> None:
    held = shortened(Entry(b"v", 100.0, 160.0), 50.0, 30.0)
    assert (held.fresh_until, held.dead_at) == (50.0, 80.0)
    assert shortened(Entry(b"v", 100.0, 160.0), 500.0, 60.0) == Entry(b"v", 100.0, 160.0)


def test_too_many_tags_are_refused() -> None:
    with pytest.raises(ValueError, match="65535"):
        pack(Entry(b"", 0.0, 0.0, ("x" * 70_000,)))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_like_values_and_bytes_survive_msgpack(value: Any) -> None:
    assert MsgpackCodec().decode(MsgpackCodec().encode(value)) == value


def test_the_bytes_codec_takes_bytes_only() -> None:
    assert BytesCodec().decode(BytesCodec().encode(b"x")) == b"x"
    with pytest.raises(TypeError):
        BytesCodec().encode("x")


# --- memory ------------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from([f"{prefix}:{number}" for prefix in "ab" for number in range(6)])
TAG = st.sampled_from(["x", "y", "z"])
ACTIONS = st.lists(
    st.tuples(st.just("put"), KEYS, st.binary(max_size=300), st.frozensets(TAG))
    | st.tuples(st.just("drop"), KEYS)
    | st.tuples(st.just("tag"), TAG)
    | st.tuples(st.just("prefix"), st.sampled_from(["a:", "b:1", ""]))
    | st.tuples(st.just("get"), KEYS),
    max_size=60,
)


@given(ACTIONS, st.integers(1, 8), st.integers(200, 2_000))
def test_memory_stays_within_its_bounds_and_forgets_what_it_is_told_to(actions: Any, keys: int, size: int) -> None:
    memory, model = MemoryLayer(keys, size), OrderedDict[str, Entry]()
    for action, what, *more in actions:
        match action:
            case "put":
                model[what] = Entry(more[0], 1e9, 1e9, tuple(sorted(more[1])))
                memory.put(what, model[what])
            case "drop":
                memory.drop((what,))
                model.pop(what, None)
            case "tag":
                memory.drop_tags((what,))
                model = OrderedDict((key, held) for key, held in model.items() if what not in held.tags)
            case "prefix":
                memory.drop_prefix(what)
                model = OrderedDict((key, held) for key, held in model.items() if not key.startswith(what))
        assert len(memory) <= keys
        assert memory.size_bytes <= size
        for key in ("a:0", "b:1"):
            assert memory.get(key, 0.0) in (None, model.get(key))
    assert memory.size_bytes == sum(held.size_bytes for key, held in model.items() if key in memory)
    memory.clear()
    assert (len(memory), memory.size_bytes) == (0, 0)


def test_what_was_used_least_recently_goes_first() -> None:
    memory = MemoryLayer(2, 10_000)
    for key in "ab":
        memory.put(key, Entry(b"", 1e9, 1e9))
    memory.get("a", 0.0)
    memory.put("c", Entry(b"", 1e9, 1e9))
    assert ("a" in memory, "b" in memory, "c" in memory) == (True, False, True)


# --- the stream --------------------------------------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.invalidations: list[Invalidation] = []
        self.changes = 0
        self.losses = 0
        self.feed = Feed(None, "products", self.listener(), 0.0)  # type: ignore[arg-type]

    def listener(self) -> Listener:
        def changed() -> None:
            self.changes += 1

        def lost() -> None:
            self.losses += 1

        return Listener(self.invalidations.append, changed, lost, lambda: None)

    def tell(
        self, event: str, revision: int | None, *, namespace: str = "products", cursor: str = "1", **request: Any
    ) -> None:
        details = {"operation": "cache.invalidate", "request": {"namespace": namespace, **request}}
        self.feed.take(StreamEvent(cursor, event, {"details": details, "revision": revision}))


async def test_an_invalidation_is_heard_when_it_ends_well_or_badly() -> None:
    heard = Heard()
    heard.tell("OperationStarted", 10, keys=["a"])
    heard.tell("OperationSucceeded", 10, keys=["a"])
    heard.tell("OperationFailed", 11, tags=["t"])
    heard.tell("OperationSucceeded", 12, namespace="other", all=True)
    assert heard.invalidations == [Invalidation(10, keys=("a",)), Invalidation(11, tags=("t",))]
    assert heard.feed.cursor == "1"


async def test_a_revision_is_reached_when_nothing_before_it_is_still_running() -> None:
    heard = Heard()
    heard.tell("OperationStarted", 10, keys=["a"])
    heard.tell("OperationStarted", 11, keys=["b"])
    heard.tell("OperationSucceeded", 11, keys=["b"])
    assert [heard.feed.reached(revision) for revision in (9, 10, 11, 12)] == [True, False, True, False]
    heard.tell("OperationSucceeded", 10, keys=["a"])
    assert heard.feed.reached(10)


async def test_changes_of_the_namespace_and_of_targets_are_told_apart_from_others() -> None:
    heard = Heard()
    for setting in (
        "t/cache.namespace/products",
        "t/cache.target/redis",
        "t/cache.namespace/other",
        "t/cache.redis_user/products",
    ):
        heard.feed.take(StreamEvent("2", "SettingAccepted", {"setting": setting}))
    assert heard.changes == 2


@pytest.mark.parametrize(
    "data", [{}, {"details": None}, {"details": {"operation": "cache.invalidate"}}, {"setting": 5}]
)
async def test_events_of_other_kinds_are_passed_over(data: dict[str, Any]) -> None:
    heard = Heard()
    for event in ("OperationSucceeded", "SettingAccepted", "TargetUp", "SomethingNew"):
        heard.feed.take(StreamEvent("3", event, data))
    assert (heard.invalidations, heard.changes) == ([], 0)


def test_a_request_that_is_not_understood_invalidates_everything() -> None:
    assert invalidation(1, {"prefix": ""}).prefix == ""
    assert invalidation(1, {"all": True}).everything
    assert invalidation(1, {"by_owner": "ann"}).everything


# --- configuration -----------------------------------------------------------------------------------------------------


def test_a_namespace_is_read_whatever_newer_daemons_add() -> None:
    found = namespace_config(
        {"prefix": "p:", "layers": [{"target": "r", "ttl_s": 5, "new": 1}], "stale_s": None, "newer": {}}
    )
    assert (found.prefix, found.layers[0].ttl_s, found.stale_s, found.tag_life_s) == ("p:", 5.0, 0.0, 5.0)


@pytest.mark.parametrize("value", [{}, {"prefix": "p"}, {"prefix": "p", "layers": [{}]}, {"prefix": "p", "layers": 5}])
def test_what_is_no_namespace_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not the value"):
        namespace_config(value)


def test_places_come_from_the_declaration_or_from_the_application() -> None:
    assert place_of({"kind": "memcached", "nodes": ["memcached://a", "memcached://b"]}) == Place(
        "memcached", ("memcached://a", "memcached://b")
    )
    assert place_at("rediss://:secret@h:1/2") == Place("redis", ("rediss://:secret@h:1/2",))
    assert place_at("h:1, h:2") == Place("memcached", ("h:1", "h:2"))
    assert [address(url) for url in ("memcached://h:1", "h", "h:7", "[::1]:5")] == [
        ("h", 1),
        ("h", 11211),
        ("h", 7),
        ("::1", 5),
    ]


# --- memcached's replies -----------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.sampled_from([b"HD\r\n", b"EN\r\n", b"VA 5 c9 W\r\nab\r\nc\r\n", b"VA 0 c3 Z\r\n\r\n", b"EX\r\n"]),
        max_size=6,
    ),
    st.integers(0, 80),
)
def test_replies_are_cut_the_same_wherever_the_bytes_are(replies: list[bytes], at: int) -> None:
    whole = b"".join(replies)
    found, buffer = [], bytearray()
    for chunk in (whole[:at], whole[at:]):
        buffer += chunk
        while (cut := parse(buffer)) is not None:
            found.append(cut[0])
            del buffer[: cut[1]]
    assert not buffer
    assert [reply.code.encode() for reply in found] == [reply[:2] for reply in replies]
    assert all(reply != Reply("VA", {}) for reply in found)
    assert {reply.value for reply in found} <= {None, b"", b"ab\r\nc"}


# --- batches -----------------------------------------------------------------------------------------------------------


async def test_keys_missed_together_are_loaded_together_and_the_absent_are_told() -> None:
    calls: list[list[str]] = []

    async def load(keys: Any) -> dict[str, int]:
        calls.append(list(keys))
        return {key: len(key) for key in keys if key != "none"}

    batch = Batch(load)
    found = await asyncio.gather(*(batch.one(key)() for key in ("a", "bb", "none")), return_exceptions=True)
    assert found[:2] == [1, 2]
    assert isinstance(found[2], NotLoaded)
    assert calls == [["a", "bb", "none"]]


async def test_a_failing_batch_fails_for_every_key_and_the_next_one_starts_afresh() -> None:
    failures = [LookupError("down")]

    async def load(keys: Any) -> dict[str, str]:
        if failures:
            raise failures.pop()
        return dict.fromkeys(keys, "up")

    batch = Batch(load)
    found = await asyncio.gather(*(batch.one(key)() for key in "abc"), return_exceptions=True)
    assert all(isinstance(one, LookupError) for one in found)
    assert await batch.one("d")() == "up"

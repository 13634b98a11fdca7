"""What every store of the projection does with statuses; see `projection_stores`."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.domain.status import Condition, KeyStatus, LastAction, public, to_wire
from controlplane.log import codec
from controlplane.log.ports import Entry, Stream
from controlplane.projection.documents import documents
from controlplane.projection.queries import StatusFilter
from schemas.names import timestamp

T0 = 1_767_225_600.0


def status(
    name, offset, *, shard=0, kind="cache.redis_user", tenant="acme", ready="True", reason="Converged", **fields
):
    """An entry of the status stream."""
    key = f"{tenant}/{kind}/{name}"
    message = fields.pop("message", "")
    conditions = (Condition("Ready", ready, reason, message, timestamp(T0)),)
    known = KeyStatus(key, **{"revision": 1, "observed_generation": 1, "conditions": conditions, **fields})
    return Entry(Stream.STATUS, shard, offset, key, codec.encode(to_wire(known)))


def gone(name, offset, *, shard=0):
    return Entry(Stream.STATUS, shard, offset, f"acme/cache.redis_user/{name}", None)


async def put_statuses(store, *entries):
    """A batch each, so that nothing is settled before the store."""
    for entry in entries:
        await store.write(documents([entry]), {})


async def names(store, **wanted):
    return [item["name"] for item in (await store.statuses(StatusFilter("acme", **wanted))).items]


async def test_a_status_comes_back_as_the_api_answers_it_without_what_a_takeover_needs(store):
    known = KeyStatus(
        "acme/cache.redis_user/app",
        revision=7,
        observed_generation=3,
        conditions=(
            Condition("Drifted", "True", "OutOfBandChange", "/ttl_s", timestamp(T0)),
            Condition("Ready", "False", "Drifted", "differs on /ttl_s", timestamp(T0)),
        ),
        external="app",
        drift=(("/ttl_s", 300, None), ("/a", {"": ["odd", {"n": 1.5}]}, "x" * 9_000)),
        muted=(("/b\0", {"deep": {"er": True}}, []),),
        last_action=LastAction("SetUser", "succeeded", timestamp(T0), 2),
        next_at=timestamp(T0 + 60),
        remembered=(("fingerprint", "kept to ourselves"),),
    )
    await put_statuses(store, Entry(Stream.STATUS, 3, 9, known.key, codec.encode({**to_wire(known), "newer": [1]})))
    named = {"setting": known.key, "tenant": "acme", "setting_type": "cache.redis_user", "name": "app"}
    expected = {**named, "service_name": "cache", "revision": 7, **public(known)}
    assert (await store.statuses(StatusFilter("acme"))).items == [expected]


async def test_a_newer_status_takes_the_place_and_an_older_one_that_comes_late_does_not(store):
    await put_statuses(store, status("app", 4, reason="Converged"), status("app", 9, reason="Refused", ready="False"))
    newest = (await store.statuses(StatusFilter("acme"))).items
    assert [item["conditions"][0]["reason"] for item in newest] == ["Refused"]
    await put_statuses(store, status("app", 4, reason="Converged"), status("app", 8, reason="Other"))
    await store.write(documents([status("app", 8, reason="Other")]), {})
    assert (await store.statuses(StatusFilter("acme"))).items == newest
    assert await names(store, text="Converged") == await names(store, text="Other") == []


async def test_what_is_gone_is_gone_and_does_not_come_back_by_what_is_older(store):
    await put_statuses(store, gone("never", 1), status("app", 2), status("other", 3), gone("app", 4), status("app", 2))
    await put_statuses(store, gone("other", 2))
    assert await names(store) == ["other"]
    assert await names(store, text="app") == []
    await put_statuses(store, status("app", 7, revision=5))
    assert await names(store) == ["app", "other"]


async def test_the_same_statuses_again_change_nothing(store):
    entries = [status("a", 0), status("b", 1), status("a", 2, ready="False"), gone("b", 3), status("c", 4)]
    await store.write(documents(entries), {})
    once = (await store.statuses(StatusFilter("acme"))).items
    await store.write(documents(entries), {})
    await put_statuses(store, *entries)
    assert (await store.statuses(StatusFilter("acme"))).items == once
    assert [(item["name"], item["conditions"][0]["status"]) for item in once] == [("a", "False"), ("c", "True")]


BEFORE = status("app", 900, shard=1, revision=1)
AFTER = status("app", 5, shard=2, revision=2)
LEFT = gone("app", 901, shard=1)


@pytest.mark.parametrize(
    "entries",
    [
        (BEFORE, AFTER),
        (AFTER, BEFORE),
        (BEFORE, AFTER, LEFT),
        (BEFORE, LEFT, AFTER),
        (AFTER, BEFORE, LEFT),
        (AFTER, LEFT),
    ],
)
async def test_of_a_setting_that_moved_to_another_shard_the_newer_revision_counts(store, entries):
    await put_statuses(store, status("aaa", 1), *entries, status("zzz", 2))
    items = (await store.statuses(StatusFilter("acme"))).items
    assert [(item["name"], item["revision"]) for item in items] == [("aaa", 1), ("app", 2), ("zzz", 1)]


async def test_a_page_of_settings_that_moved_neither_misses_one_nor_finds_what_no_longer_holds(store):
    moving = [status(f"s{n}", 900 + n, shard=1, revision=1, ready="True") for n in range(5)]
    moved = [status(f"s{n}", n, shard=2, revision=2, ready="False" if n % 2 else "True") for n in range(5)]
    await put_statuses(store, *moving, *moved)
    for limit in (1, 2, 3, 10):
        assert await pages(store, limit) == [f"s{n}" for n in range(5)]
        assert await pages(store, limit, conditions=["Ready=True"]) == ["s0", "s2", "s4"]


async def pages(store, limit, **wanted):
    found, after = [], ""
    while True:
        page = await store.statuses(StatusFilter("acme", limit=limit, after=after, **wanted))
        assert len(page.items) <= limit
        found += [item["name"] for item in page.items]
        if page.next_cursor is None:
            return found
        after = page.next_cursor


async def test_statuses_are_found_by_what_they_say(store):
    await put_statuses(
        store,
        status("app", 1),
        status("bad", 2, ready="False", reason="SecretNotFound", message="no variable REDIS_Größe here"),
        status("far", 3, ready="Unknown", reason="Unreachable", kind="cache.namespace"),
        status("off", 4, kind="queue.topic", drift=(("/retention_ms", 5, "forever"),), paused=True),
        Entry(Stream.STATUS, 0, 5, "#mark", codec.encode({"settings_position": 3})),
    )
    assert await names(store) == ["far", "app", "bad", "off"], "by keys"
    assert await names(store, service_name="queue") == ["off"]
    assert await names(store, setting_type="cache.namespace") == ["far"]
    assert await names(store, setting="acme/cache.redis_user/bad") == ["bad"]
    assert await names(store, phase="Paused") == ["off"]
    assert await names(store, phase="Ready") == ["app"]
    assert await names(store, conditions=["Ready=False"]) == ["bad"]
    assert await names(store, conditions=["Ready=True", "Ready=False"]) == []
    assert await names(store, reason="Unreachable") == ["far"]
    assert await names(store, reason="Unreach") == []
    assert await names(store, services=frozenset({"queue"})) == ["off"]
    assert await names(store, services=frozenset()) == []
    for text in ("redis_größe", "SECRETNOTFOUND variable", "bad", "no var*"):
        assert await names(store, text=text) == ["bad"], text
    assert await names(store, text="retention_ms forever") == ["off"]
    assert await names(store, text="mark") == []
    assert [letter["key"] for letter in await store.dead_letters()] == []


async def test_no_status_of_another_tenant_is_ever_seen(store):
    await put_statuses(store, status("app", 1), *(status(f"x{n}", 2 + n, tenant="rival") for n in range(3)))
    assert await pages(store, 1) == ["app"]
    assert await names(store, text="x*") == []
    assert await names(store, setting="rival/cache.redis_user/x1") == []
    assert await names(store, after="rival/cache.redis_user/x0") == []
    assert len((await store.statuses(StatusFilter("rival"))).items) == 3


async def test_retention_never_takes_a_status(store):
    await put_statuses(store, status("app", 1), status("old", 2), gone("old", 3))
    await store.trim(T0 + 10**9, T0 + 10**9)
    assert await names(store) == ["app"]
    await put_statuses(store, status("app", 5, reason="Other"))
    assert await names(store, reason="Other") == ["app"]
    await store.reset()
    assert await names(store) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text() | st.text(alphabet='"*()^:-+{}~ANDORNEAR \0\ud800é'))
async def test_any_text_is_answered_of_statuses_too(store, text):
    assert (await store.statuses(StatusFilter("acme", text=text))).next_cursor is None

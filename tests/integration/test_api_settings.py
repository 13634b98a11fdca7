from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.integration.api_daemon import APP, BASE, REDIS, TARGET, USER, Api, daemon


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon() as running:
        yield running


async def test_a_new_setting_is_created_and_answered_whole(api: Api) -> None:
    made = await api.put(TARGET, REDIS, 201, labels={"team": "shop"})
    assert made["id"]
    assert (made["tenant"], made["setting_type"], made["name"]) == ("default", "cache.target", "main")
    assert made["value"] == REDIS
    assert made["labels"] == {"team": "shop"}
    assert (made["generation"], made["revision"], made["retiring"]) == (1, 1, False)
    assert made["status"]["phase"] == "Pending"
    assert await api.call("GET", TARGET, 200) == made


async def test_the_same_again_changes_nothing(api: Api) -> None:
    first = await api.put(TARGET, REDIS, 201)
    again = await api.put(TARGET, REDIS, 200)
    assert again == first
    assert await api.log.settings.end_offset() == 1


async def test_put_replaces_the_whole_declaration(api: Api) -> None:
    await api.put(TARGET, REDIS, 201, labels={"a": "1"}, policy={"protect": True})
    replaced = await api.put(TARGET, REDIS, 200)
    assert (replaced["labels"], replaced["policy"]) == ({}, {})


async def test_patch_merges_and_null_removes(api: Api) -> None:
    await api.put(USER, {**APP, "channels": ["news.*"]}, 201, labels={"a": "1"})
    patch = {"value": {"channels": None, "keys": ["b:*"]}, "labels": {"b": "2"}, "reason": "tidy"}
    patched = await api.call("PATCH", USER, 200, json=patch)
    assert patched["value"] == {**APP, "keys": ["b:*"]}
    assert patched["labels"] == {"a": "1", "b": "2"}
    assert patched["generation"] == 2


async def test_concurrent_patches_of_one_setting_all_arrive(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    numbers = [str(number) for number in range(4)]
    await asyncio.gather(*(api.call("PATCH", TARGET, 200, json={"labels": {n: n}}) for n in numbers))
    assert (await api.call("GET", TARGET, 200))["labels"] == {n: n for n in numbers}


async def test_the_etag_is_the_revision_and_a_stale_one_is_refused(api: Api) -> None:
    created = await api.raw("PUT", TARGET, json={"value": REDIS})
    assert created.headers["ETag"] == '"1"'
    changed = await api.raw("PUT", TARGET, json={"value": REDIS, "labels": {"a": "b"}}, headers={"If-Match": '"1"'})
    assert (changed.status, changed.headers["ETag"]) == (200, '"2"')
    for method, body in (("PUT", {"value": REDIS}), ("PATCH", {"labels": {"c": "d"}}), ("DELETE", None)):
        problem = await api.call(method, TARGET, 412, json=body, headers={"If-Match": '"1", "7"'})
        assert problem["reason"] == "PreconditionFailed"
    await api.call("PATCH", TARGET, 200, json={"labels": {"c": "d"}}, headers={"If-Match": '"1", "2"'})
    await api.call("PATCH", TARGET, 200, json={"labels": {"c": None}}, headers={"If-Match": "*"})


async def test_if_none_match_creates_once(api: Api) -> None:
    only_new = {"If-None-Match": "*"}
    await api.call("PUT", TARGET, 201, json={"value": REDIS}, headers=only_new)
    await api.call("PUT", TARGET, 412, json={"value": REDIS}, headers=only_new)


async def test_if_match_needs_a_setting(api: Api) -> None:
    await api.call("PUT", TARGET, 412, json={"value": REDIS}, headers={"If-Match": "*"})


async def test_a_repeated_request_gets_the_first_result_even_after_other_changes(api: Api) -> None:
    once = {"Idempotency-Key": "k1", "If-None-Match": "*"}
    first = await api.call("PUT", TARGET, 201, json={"value": REDIS}, headers=once)
    await api.put(TARGET, REDIS, 200, labels={"later": "yes"})
    again = await api.call("PUT", TARGET, 201, json={"value": REDIS}, headers=once)
    assert again == first


async def test_the_correlation_id_of_an_answer_repeats_the_request(api: Api) -> None:
    first = await api.raw("PUT", TARGET, json={"value": REDIS})
    correlation_id = first.headers["X-Correlation-Id"]
    again = await api.raw("PUT", TARGET, json={"value": REDIS}, headers={"Idempotency-Key": correlation_id})
    assert (again.status, again.headers["X-Correlation-Id"]) == (201, correlation_id)


async def test_an_idempotency_key_belongs_to_one_setting_and_one_tenant(api: Api) -> None:
    key = {"Idempotency-Key": "k1"}
    await api.call("PUT", TARGET, 201, json={"value": REDIS}, headers=key)
    problem = await api.call("PUT", f"{BASE}/settings/cache.target/second", 409, json={"value": REDIS}, headers=key)
    assert "Idempotency-Key" in problem["detail"]
    await api.call("PUT", TARGET.replace("default", "other"), 201, json={"value": REDIS}, headers=key)


async def test_a_dry_run_stores_nothing(api: Api) -> None:
    tried = await api.call("PUT", f"{TARGET}?dry_run=true", 200, json={"value": REDIS})
    assert (tried["dry_run"], tried["value"], tried["generation"]) == (True, REDIS, 1)
    await api.call("GET", TARGET, 404)
    assert await api.log.settings.end_offset() == 0
    await api.put(TARGET, REDIS, 201, policy={"protect": True})
    assert (await api.call("DELETE", f"{TARGET}?dry_run=true", 409))["reason"] == "Protected"


async def test_a_write_can_wait_until_it_is_ready(api: Api) -> None:
    writing = asyncio.create_task(api.call("PUT", f"{TARGET}?wait=Ready&timeout=20", 201, json={"value": REDIS}))
    await api.parts.replica.reach(1, 10)
    await api.converge("default/cache.target/main", 1)
    assert (await writing)["status"]["phase"] == "Ready"


async def test_a_write_that_is_not_ready_in_time_is_accepted_with_its_status(api: Api) -> None:
    late = await api.call("PUT", f"{TARGET}?wait=Ready&timeout=0.05", 202, json={"value": REDIS})
    assert late["status"]["phase"] == "Pending"


async def test_a_status_of_an_older_generation_does_not_count_as_ready(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    await api.converge("default/cache.target/main", 1)
    changed = {"value": {**REDIS, "url": "redis://localhost:7000"}}
    late = await api.call("PUT", f"{TARGET}?wait=Ready&timeout=0.05", 202, json=changed)
    assert (late["generation"], late["status"]["phase"], late["status"]["observed_generation"]) == (2, "Pending", 1)


async def test_retiring_is_accepted_and_can_wait_until_it_is_gone(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    waiting = asyncio.create_task(api.call("DELETE", f"{TARGET}?wait=Gone&timeout=20&deletion=delete", 200))
    await api.parts.replica.reach(2, 10)
    retiring = await api.call("GET", TARGET, 200)
    assert (retiring["retiring"], retiring["status"]["phase"], retiring["revision"]) == (True, "Retiring", 2)
    forget = {"op": "forget", "key": "default/cache.target/main", "expected": 2}
    await api.parts.replica.submit([forget], actor="test", request_id="f")
    assert (await waiting)["retiring"] is True
    await api.call("GET", TARGET, 404)
    await api.call("DELETE", TARGET, 404)


async def test_retiring_that_takes_longer_than_the_wait_is_accepted(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    assert (await api.call("DELETE", f"{TARGET}?wait=Gone&timeout=0.05", 202))["retiring"] is True


async def test_what_is_protected_is_not_retired(api: Api) -> None:
    await api.put(TARGET, REDIS, 201, policy={"protect": True})
    assert (await api.call("DELETE", TARGET, 409))["reason"] == "Protected"
    await api.call("PATCH", TARGET, 200, json={"policy": {"protect": False}})
    await api.call("DELETE", TARGET, 202)


async def test_a_setting_can_be_read_as_it_was(api: Api) -> None:
    first = await api.put(TARGET, REDIS, 201, labels={"n": "1"})
    await api.put(TARGET, REDIS, 200, labels={"n": "2"})
    assert (await api.call("GET", f"{TARGET}?at=1", 200))["labels"] == {"n": "1"}
    assert (await api.call("GET", f"{TARGET}?at=2", 200))["labels"] == {"n": "2"}
    by_time = await api.call("GET", TARGET, 200, params={"at": first["updated_at"]})
    assert by_time["labels"] == {"n": "1"}
    await api.call("GET", f"{TARGET}?at=2000-01-01T00:00:00Z", 404)
    await api.call("GET", f"{TARGET}?at=0", 404)


async def test_a_read_waits_for_a_revision_or_says_that_it_is_not_there_yet(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    await api.call("GET", f"{TARGET}?min_revision=1", 200)
    late = await api.call("GET", f"{TARGET}?min_revision=2&timeout=0.05", 504)
    assert late["reason"] == "NotFoldedYet"
    reading = asyncio.create_task(api.call("GET", f"{TARGET}?min_revision=2", 200))
    await api.put(TARGET, REDIS, 200, labels={"a": "b"})
    assert (await reading)["revision"] == 2


async def test_the_history_holds_every_revision_newest_first_in_pages(api: Api) -> None:
    for number in range(3):
        await api.put(TARGET, REDIS, labels={"n": str(number)}, reason=f"because {number}")
    first = await api.call("GET", f"{TARGET}/history?limit=2", 200)
    assert [(row["revision"], row["reason"]) for row in first["items"]] == [(3, "because 2"), (2, "because 1")]
    assert first["items"][0]["changed"] == ["/labels/n"]
    rest = await api.call("GET", f"{TARGET}/history?limit=2&cursor={first['next_cursor']}", 200)
    assert ([row["revision"] for row in rest["items"]], rest["next_cursor"]) == ([1], None)


async def test_lists_are_filtered_and_paged_by_key(api: Api) -> None:
    for number in range(5):
        await api.put(f"{BASE}/settings/cache.target/t{number}", REDIS, 201, labels={"even": str(number % 2 == 0)})
    await api.put(USER, {**APP, "target": "t0"}, 201)
    await api.put(TARGET.replace("default", "other"), REDIS, 201)
    await api.converge("default/cache.target/t3", 1)

    async def names(query: str) -> list[str]:
        return [item["name"] for item in (await api.call("GET", f"{BASE}/settings?{query}", 200))["items"]]

    assert await names("") == ["app", "t0", "t1", "t2", "t3", "t4"]
    assert await names("type=cache.redis_user") == ["app"]
    assert await names("service=queue") == []
    assert await names("label=even=True&service=cache") == ["t0", "t2", "t4"]
    assert await names("phase=Ready") == ["t3"]
    assert await names("text=APP:*") == ["app"]
    page = await api.call("GET", f"{BASE}/settings?limit=4", 200)
    await api.put(f"{BASE}/settings/cache.target/a0", REDIS, 201)
    assert await names(f"limit=4&cursor={page['next_cursor']}") == ["t3", "t4"]


async def test_reconcile_asks_the_controller_to_look(api: Api) -> None:
    await api.call("POST", f"{TARGET}/reconcile", 404)
    await api.put(TARGET, REDIS, 201)
    await api.call("POST", f"{TARGET}/reconcile", 202)
    assert api.looked.keys == ["default/cache.target/main"]


async def test_a_setting_stays_at_its_target(api: Api) -> None:
    await api.put(USER, APP, 201)
    problem = await api.put(USER, {**APP, "target": "elsewhere"}, 422)
    assert [error["path"] for error in problem["errors"]] == ["/value/target"]
    await api.call("PATCH", USER, 422, json={"value": {"target": "elsewhere"}})


async def test_an_operation_gets_the_body_and_who_asked(api: Api) -> None:
    done = await api.call(
        "POST", f"{BASE}/operations/cache.echo", 200, json={"a": 1}, headers={"X-Actor": "ann", "Idempotency-Key": "o1"}
    )
    assert done["operation_id"] == "default/o1"
    assert done["result"] == {"tenant": "default", "name": "cache.echo", "body": {"a": 1}, "actor": "ann"}
    assert (await api.call("POST", f"{BASE}/operations/cache.echo", 200))["result"]["body"] == {}
    await api.call("POST", f"{BASE}/operations/cache.nothing", 404)

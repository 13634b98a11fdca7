from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.api_daemon import APP, BASE, REDIS, TARGET, Api, daemon

APPLY = f"{BASE}/apply"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon() as running:
        yield running


def declaration(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "cache.target", "name": name, "value": REDIS} | more


async def test_all_of_a_document_is_declared_at_one_revision(api: Api) -> None:
    user = {"type": "cache.redis_user", "name": "app", "value": {**APP, "target": "a"}}
    done = await api.call("POST", APPLY, 200, json={"settings": [declaration("a"), user], "reason": "begin"})
    assert done["revision"] == 1
    assert done["results"] == [
        {"setting": "default/cache.target/a", "outcome": "created", "generation": 1},
        {"setting": "default/cache.redis_user/app", "outcome": "created", "generation": 1},
    ]
    again = await api.call("POST", APPLY, 200, json={"settings": [declaration("a"), user]})
    assert [result["outcome"] for result in again["results"]] == ["unchanged", "unchanged"]
    assert (again["revision"], await api.log.settings.end_offset()) == (1, 1)


async def test_one_fault_keeps_everything_out_and_all_faults_are_told(api: Api) -> None:
    settings = [declaration("a"), declaration("b/c"), {"type": "cache.nothing", "name": "d", "value": {}}, 5]
    settings.append(declaration("e", colour="red"))
    settings.append(declaration("a"))
    problem = await api.call("POST", APPLY, 422, json={"settings": settings})
    paths = {error["path"] for error in problem["errors"]}
    assert paths == {"/settings/1/name", "/settings/2/type", "/settings/3", "/settings/4/colour", "/settings/5/name"}
    assert (await api.call("GET", f"{BASE}/settings"))["items"] == []


async def test_yaml_documents_lists_and_single_declarations_are_taken(api: Api) -> None:
    text = """
type: cache.target
name: a
value: {kind: redis, url: "redis://localhost:6379"}
---
- {type: cache.target, name: b, value: {kind: redis, url: "redis://localhost:6379"}}
---
settings:
  - {type: cache.target, name: c, value: {kind: redis, url: "redis://localhost:6379"}, labels: {day: 2026-01-31}}
"""
    for media_type in ("application/yaml", "text/yaml"):
        done = await api.call("POST", APPLY, 200, data=text.encode(), headers={"Content-Type": media_type})
        assert [result["setting"][-1] for result in done["results"]] == ["a", "b", "c"]
    assert (await api.call("GET", f"{BASE}/settings/cache.target/c"))["labels"] == {"day": "2026-01-31"}


async def test_prune_retires_what_carries_the_labels_and_is_no_longer_declared(api: Api) -> None:
    ours = [declaration(name, labels={"app": "shop"}) for name in "abcd"]
    await api.call("POST", APPLY, 200, json={"settings": [*ours, declaration("foreign")]})
    prune = {"settings": ours[:3], "prune": {"labels": {"app": "shop"}}}
    dry = await api.call("POST", f"{APPLY}?dry_run=true", 200, json=prune)
    done = await api.call("POST", APPLY, 200, json=prune)
    assert dry["results"] == done["results"]
    outcomes = {result["setting"][-1]: result["outcome"] for result in done["results"]}
    assert outcomes == {"a": "unchanged", "b": "unchanged", "c": "unchanged", "d": "retired"}
    again = await api.call("POST", APPLY, 200, json=prune)
    assert {result["outcome"] for result in again["results"]} == {"unchanged"}


async def test_prune_over_the_safety_share_needs_permission(api: Api) -> None:
    ours = [declaration(name, labels={"app": "shop"}) for name in "abc"]
    await api.call("POST", APPLY, 200, json={"settings": ours})
    prune = {"settings": ours[:2], "prune": {"labels": {"app": "shop"}}}
    problem = await api.call("POST", APPLY, 409, json=prune)
    assert problem["reason"] == "PruneRefused"
    await api.call("POST", f"{APPLY}?allow_prune=true", 200, json=prune)


async def test_a_protected_setting_keeps_the_whole_prune_out(api: Api) -> None:
    ours = [declaration("a", labels={"x": "y"}), declaration("b", labels={"x": "y"}, policy={"protect": True})]
    await api.call("POST", APPLY, 200, json={"settings": ours})
    prune = {"settings": [declaration("new")], "prune": {"labels": {"x": "y"}}}
    problem = await api.call("POST", f"{APPLY}?allow_prune=true", 409, json=prune)
    assert problem["reason"] == "Protected"
    await api.call("GET", f"{BASE}/settings/cache.target/new", 404)


async def test_a_repeated_apply_gets_the_first_result(api: Api) -> None:
    once = {"Idempotency-Key": "a1"}
    document = {"settings": [declaration("a"), declaration("b")]}
    first = await api.call("POST", APPLY, 200, json=document, headers=once)
    await api.put(f"{BASE}/settings/cache.target/a", REDIS, 200, labels={"later": "yes"})
    assert await api.call("POST", APPLY, 200, json=document, headers=once) == first
    await api.call("POST", APPLY, 409, json={"settings": [declaration("c")]}, headers=once)


async def test_what_is_exported_is_taken_back(api: Api) -> None:
    odd = declaration(
        "odd", labels={"q": "yes", "d": "2026-01-31", "n": "0123", "u": "ü: - #"}, policy={"protect": True}
    )
    await api.call("POST", APPLY, 200, json={"settings": [odd, declaration("plain")]})
    everything = await api.call("GET", f"{BASE}/export", 200)
    text = await (await api.client.get(f"{BASE}/export", headers={"Accept": "application/yaml"})).read()
    chosen = await api.call("GET", f"{BASE}/export?label=q=yes", 200)
    assert [found["name"] for found in chosen["settings"]] == ["odd"]
    for body in ({"json": everything}, {"data": text, "headers": {"Content-Type": "application/yaml"}}):
        again = await api.call("POST", APPLY, 200, **body)
        assert {result["outcome"] for result in again["results"]} == {"unchanged"}


@pytest.mark.parametrize(
    ("document", "status", "path"),
    [
        ({"settings": "x"}, 422, "/settings"),
        ({}, 422, "/settings"),
        ({"settings": [], "colour": 1}, 400, "/colour"),
        ({"settings": [], "prune": {}}, 422, "/prune/labels"),
        ({"settings": [], "prune": {"labels": {}}}, 422, "/prune/labels"),
        ({"settings": [], "prune": {"labels": {"a": 1}}}, 422, "/prune/labels"),
        ({"settings": [], "prune": {"label": {}}}, 400, "/prune/label"),
        ({"settings": [], "reason": 5}, 422, "/reason"),
    ],
)
async def test_a_document_that_makes_no_sense_is_refused_by_path(
    api: Api, document: Any, status: int, path: str
) -> None:
    problem = await api.call("POST", APPLY, status, json=document)
    assert [error["path"] for error in problem["errors"]] == [path]


@pytest.mark.parametrize("name", [{}, [], None, 5, True])
async def test_a_name_that_is_no_text_is_refused_by_its_path(api: Api, name: Any) -> None:
    document = {"settings": [{"type": "cache.target", "name": name, "value": {}}]}
    problem = await api.call("POST", APPLY, 422, json=document)
    assert "/settings/0/name" in {error["path"] for error in problem["errors"]}


async def test_a_large_document_is_taken_whole(api: Api) -> None:
    settings = [declaration(f"t{number:04}") for number in range(1000)]
    done = await api.call("POST", APPLY, 200, json={"settings": settings})
    assert (len(done["results"]), await api.log.settings.end_offset()) == (1000, 1)
    settings[700] = declaration("t0700", value={"kind": "redis"})
    problem = await api.call("POST", APPLY, 422, json={"settings": settings})
    assert {error["path"].rsplit("/value", 1)[0] for error in problem["errors"]} == {"/settings/700"}


async def test_nothing_to_apply_is_nothing_done(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    assert await api.call("POST", APPLY, 200, json={"settings": []}) == {"revision": 1, "results": []}

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.integration.api_daemon import BASE, REDIS, Api, daemon

ROLLBACK = f"{BASE}/rollback"
APPLY = f"{BASE}/apply"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon() as running:
        yield running


def target(name: str, port: int = 6379, **more: Any) -> dict[str, Any]:
    return {"type": "cache.target", "name": name, "value": REDIS | {"url": f"redis://localhost:{port}"}} | more


async def declare(api: Api, *settings: dict[str, Any]) -> int:
    """The revision of the apply."""
    return int((await api.call("POST", APPLY, 200, json={"settings": settings}))["revision"])


async def exported(api: Api) -> Any:
    return (await api.call("GET", f"{BASE}/export", 200))["settings"]


def outcomes(done: dict[str, Any]) -> dict[str, str]:
    return {result["setting"].rpartition("/")[2]: result["outcome"] for result in done["results"]}


async def test_everything_is_declared_again_as_it_was_at_one_revision(api: Api) -> None:
    good = await declare(api, target("a", labels={"x": "1"}), target("b", policy={"drift": "report"}))
    before = await exported(api)
    await declare(api, target("a", 1), target("b"), target("c"))
    done = await api.call("POST", ROLLBACK, 200, json={"to": good})
    assert outcomes(done) == {"a": "updated", "b": "updated", "c": "retired"}
    assert await exported(api) == before
    newest = (await api.call("GET", f"{BASE}/settings/cache.target/a/history", 200))["items"][0]
    assert (newest["reason"], newest["revision"]) == (f"rollback to {good}", done["revision"])
    again = await api.call("POST", ROLLBACK, 200, json={"to": good})
    assert (again["results"], await api.log.settings.end_offset()) == ([], 3)


async def test_a_time_does_as_well_as_a_revision(api: Api) -> None:
    await declare(api, target("a"))
    when = (await api.call("GET", f"{BASE}/settings/cache.target/a", 200))["updated_at"]
    await declare(api, target("a", 1), target("b"))
    done = await api.call("POST", ROLLBACK, 200, json={"to": when})
    assert outcomes(done) == {"a": "updated", "b": "retired"}


async def test_a_dry_run_lists_outcomes_and_changed_paths_and_stores_nothing(api: Api) -> None:
    good = await declare(api, target("a"), target("same"))
    await declare(api, target("a", 1, labels={"x": "1"}), target("b"))
    listed = await api.call("POST", f"{ROLLBACK}?dry_run=true", 200, json={"to": good})
    assert [(row["setting"], row["outcome"], row["changed"]) for row in listed["results"]] == [
        ("default/cache.target/a", "updated", ["/labels/x", "/value/url"]),
        ("default/cache.target/b", "retired", []),
        ("default/cache.target/same", "unchanged", []),
    ]
    assert await api.log.settings.end_offset() == 2


async def test_only_the_settings_named_and_only_those_with_the_labels_go_back(api: Api) -> None:
    good = await declare(api, target("a"), target("b"), target("c", labels={"team": "x"}))
    await declare(api, target("a", 1), target("b", 1), target("c", 1))
    named = await api.call("POST", ROLLBACK, 200, json={"to": good, "settings": ["cache.target/a"]})
    assert outcomes(named) == {"a": "updated"}
    labelled = await api.call("POST", ROLLBACK, 200, json={"to": good, "labels": {"team": "x"}})
    assert outcomes(labelled) == {"c": "updated"}
    problem = await api.call("POST", ROLLBACK, 404, json={"to": good, "settings": ["cache.target/zzz"]})
    assert "cache.target/zzz" in problem["detail"]


async def test_a_protected_setting_created_since_refuses_all_of_it_by_name(api: Api) -> None:
    good = await declare(api, target("a"))
    await declare(api, target("a", 1), target("kept", policy={"protect": True}))
    for query in ("", "?dry_run=true"):
        problem = await api.call("POST", ROLLBACK + query, 409, json={"to": good})
        assert (problem["reason"], problem["errors"][0]["path"]) == ("Protected", "/default/cache.target/kept")
    assert (await api.call("GET", f"{BASE}/settings/cache.target/a", 200))["value"]["url"].endswith(":1")


async def test_a_retired_setting_is_declared_again(api: Api) -> None:
    good = await declare(api, target("a"))
    await api.call("DELETE", f"{BASE}/settings/cache.target/a", 202)
    assert outcomes(await api.call("POST", ROLLBACK, 200, json={"to": good})) == {"a": "updated"}
    assert (await api.call("GET", f"{BASE}/settings/cache.target/a", 200))["retiring"] is False


async def test_a_repeated_rollback_gets_the_first_result(api: Api) -> None:
    once = {"Idempotency-Key": "r1"}
    good = await declare(api, target("a"), target("b"))
    await declare(api, target("a", 1))
    first = await api.call("POST", ROLLBACK, 200, json={"to": good}, headers=once)
    await declare(api, target("a", 2))
    assert await api.call("POST", ROLLBACK, 200, json={"to": good}, headers=once) == first
    other = {"to": good, "settings": ["cache.target/b"]}
    assert (await api.call("POST", ROLLBACK, 409, json=other, headers=once))["reason"] == "Conflict"


async def test_other_tenants_are_not_touched(api: Api) -> None:
    good = await declare(api, target("a"))
    elsewhere = BASE.replace("default", "other")
    await api.call("POST", f"{elsewhere}/apply", 200, json={"settings": [target("a", 7)]})
    await declare(api, target("a", 1))
    assert outcomes(await api.call("POST", ROLLBACK, 200, json={"to": good})) == {"a": "updated"}
    assert (await api.call("GET", f"{elsewhere}/settings/cache.target/a", 200))["value"]["url"].endswith(":7")
    problem = await api.call("POST", ROLLBACK, 422, json={"to": good, "settings": ["other/cache.target/a"]})
    assert problem["errors"][0]["path"] == "/settings/0"


async def test_a_rollback_of_a_thousand_settings_is_one_change_request(api: Api) -> None:
    good = await declare(api, *(target(f"t{number:04}") for number in range(1000)))
    before = await exported(api)
    await declare(api, *(target(f"t{number:04}", 1) for number in range(1000)))
    done = await api.call("POST", ROLLBACK, 200, json={"to": good})
    assert (len(done["results"]), await api.log.settings.end_offset()) == (1000, 3)
    assert await exported(api) == before

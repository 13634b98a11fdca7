"""Two servers: what is written to a bucket of one of them is copied to the other, as declared, and to nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from controlplane.devstack.guardian import Guardian
from reconcilers.contract import Plan
from reconcilers.storage import replication
from reconcilers.storage.model import Versioning, versioning_document
from reconcilers.storage.s3 import Refused, bucket_path
from tests.e2e.conditions import until
from tests.integration.storage_world import BUCKET, World, fresh, login, world
from tests.servers import SharedServer, minio_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ARRIVES_S = 60.0


@pytest.fixture(scope="module")
def far_server(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[SharedServer]:
    """Another MinIO, elsewhere."""
    server = minio_in(tmp_path_factory.mktemp("far"), guardian)
    yield server
    server.end()


@pytest.fixture
async def far(far_server: Any) -> AsyncIterator[World]:
    async with world(far_server) as w:
        yield w


@pytest.fixture
async def near(minio_server: Any, far_server: Any) -> AsyncIterator[World]:
    """The server that copies; the login at the other one is among its secrets."""
    there = login(far_server).known
    known = login(minio_server)
    known.known |= {"FAR": there["KEY"], "FAR_SECRET": there["SECRET"], "WRONG": "not-the-password"}
    async with world(minio_server, known) as w:
        yield w


def rule(far: World, bucket: str, **more: Any) -> dict[str, Any]:
    to = {"endpoint": far.client.endpoint, "bucket": bucket, "access_key": {"from_env": "FAR"}}
    return {"id": "copy", "to": {**to, "secret_key": {"from_env": "FAR_SECRET"}}, **more}


def value_of(bucket: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {"bucket": bucket, "versioning": "enabled", "replication": list(rules)}


async def far_bucket(far: World) -> str:
    name = fresh("far")
    await far.client.put(bucket_path(name), (), b"", None)
    await far.put_raw(name, "versioning", versioning_document(Versioning("enabled")).decode())
    return name


async def converged(w: World, value: dict[str, Any]) -> list[str]:
    """The names of all steps until there is nothing left to do."""
    taken: list[str] = []
    while (plan := await w.look(BUCKET, value)).steps:
        taken += [step.name for step in plan.steps]
        for outcome in await w.take(plan):
            assert outcome.error is None, outcome.error
        assert len(taken) < 20, taken
    assert plan.converged, plan
    assert plan.differences == ()
    return taken


async def arrives(far: World, bucket: str, key: str, body: bytes) -> None:
    async def there() -> bool:
        try:
            return await far.client.get(f"/{bucket}/{key}") == body
        except Refused:
            return False

    await until(there, ARRIVES_S, f"{key} is copied")


async def test_what_is_written_is_copied_and_a_second_pass_does_nothing(near: World, far: World):
    here, there = fresh("near"), await far_bucket(far)
    declared = value_of(here, rule(far, there, prefix="keep/", deletes=True))
    assert await converged(near, declared) == ["CreateBucket", "SetVersioning", "PutRemote", "SetReplication"]
    await near.put_object(here, "other", b"stays here")
    await near.put_object(here, "keep/1", b"1")
    await arrives(far, there, "keep/1", b"1")

    async def counted() -> bool:
        rows = {(one.metric_type, one.tags.get("bucket")): one.value for one in await near.backend.sample()}
        return rows.get(("bucket_replicated_total", here), 0) >= 1 and rows["bucket_replication_queued", here] == 0

    await until(counted, ARRIVES_S, "a sample tells what was copied")
    with pytest.raises(Refused, match="NoSuchKey"):
        await far.client.get(f"/{there}/other")
    changed = value_of(here, rule(far, there))
    assert await converged(near, changed) == ["SetReplication"]
    await near.put_object(here, "other", b"goes now")
    await arrives(far, there, "other", b"goes now")


async def test_rules_of_others_stay_and_only_our_own_former_ones_go(near: World, far: World):
    here, there = fresh("near"), await far_bucket(far)
    await converged(near, value_of(here, rule(far, there)))
    held = replication.parsed(await near.raw(here, "replication"), None, lambda *_: "")
    arn = next(iter(held.used))
    theirs = replication.text(replication.Rule("theirs", None, priority=7, prefix="x/"), arn)
    await near.put_raw(here, "replication", replication.document([*held.texts.values(), theirs]).decode())
    assert await converged(near, value_of(here, rule(far, there))) == []
    assert await converged(near, value_of(here)) == ["SetReplication"], "its remote is theirs, too"
    left = replication.parsed(await near.raw(here, "replication"), None, lambda *_: "")
    assert list(left.rules) == ["theirs"]


async def test_a_rule_may_go_elsewhere_at_the_same_endpoint(near: World, far: World):
    here, first, second = fresh("near"), await far_bucket(far), await far_bucket(far)
    await converged(near, value_of(here, rule(far, first)))
    await converged(near, value_of(here, rule(far, second)))
    await near.put_object(here, "a", b"1")
    await arrives(far, second, "a", b"1")
    with pytest.raises(Refused, match="NoSuchKey"):
        await far.client.get(f"/{first}/a")


async def test_a_rule_that_is_removed_by_hand_is_put_back(near: World, far: World):
    here, there = fresh("near"), await far_bucket(far)
    declared = value_of(here, rule(far, there))
    await converged(near, declared)
    await near.client.delete(bucket_path(here), {"replication": ""}, None)
    plan: Plan = await near.look(BUCKET, declared)
    assert [difference.path for difference in plan.differences] == ["/replication/copy"]
    assert await converged(near, declared) == ["PutRemote", "SetReplication"], "the server forgot the remote, too"


async def test_another_login_is_noticed_put_and_never_told(near: World, far: World):
    here, there = fresh("near"), await far_bucket(far)
    declared = value_of(here, rule(far, there))
    await converged(near, declared)
    to = {**rule(far, there)["to"], "secret_key": {"from_env": "WRONG"}}
    wrong = value_of(here, rule(far, there, to=to))
    plan = await near.look(BUCKET, wrong)
    assert [difference.path for difference in plan.differences] == ["/replication/copy/to/secret_key"]
    (refused,) = await near.take(plan)
    assert refused.error is not None, "the server tries it"
    assert await converged(near, declared) == [], "and keeps the old one"
    told = repr((plan, refused, await near.backend.observe({plan.steps[0].external: None})))
    for secret in ("not-the-password", near.secrets.known["FAR_SECRET"]):
        assert secret not in told


async def test_old_objects_may_go_to_a_tier_that_the_server_knows(near: World, far: World):
    there, secrets = await far_bucket(far), near.secrets.known
    login = {"AccessKey": secrets["FAR"], "SecretKey": secrets["FAR_SECRET"]}
    tier = {"Name": "COLD", "Endpoint": far.client.endpoint, "Bucket": there, "Prefix": "p/", **login}
    known = {"Version": "v1", "Type": "minio", "Name": "COLD", "MinIO": tier}
    await near.client.admin("PUT", "tier", (), await near.client.sealed(known))
    rule = {"id": "old", "prefix": "logs/", "transition": {"days": 30, "tier": "COLD"}}
    await near.settled(BUCKET, {"bucket": fresh("tiered"), "lifecycle": [rule]})


async def test_what_is_to_be_copied_needs_versions_and_priorities(near: World, far: World):
    twice = [rule(far, "there-1"), {**rule(far, "there-1"), "id": "other"}]
    for value, message in (
        ({**value_of("b-1", rule(far, "there-1")), "versioning": "suspended"}, "versioning: enabled"),
        (value_of("b-1", *twice), "priorities"),
        (value_of("b-1", twice[0], {**rule(far, "there-2"), "id": "x", "priority": 2}), "one bucket of an endpoint"),
    ):
        with pytest.raises(ValueError, match=message):
            await near.look(BUCKET, value)

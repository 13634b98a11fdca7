"""Buckets driven by the whole daemon on a real MinIO: Ready, repaired at once, refused with the server's words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.client.http import CoreplaneClient
from reconcilers.contract import ExternalId
from reconcilers.storage import model
from reconcilers.storage.s3 import Refused
from tests.e2e.conditions import condition_of, phase, until
from tests.integration.storage_world import World, driven, fresh, target, world
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

REPAIR_S = 20.0
"""A sweep comes after a minute: what is repaired by then was noticed by the trace."""


@pytest.fixture
async def client(daemon: DaemonProcess, minio_server: Any) -> AsyncIterator[CoreplaneClient]:
    """A daemon with the run's MinIO as target `main`."""
    async with driven(daemon, minio_server) as client:
        yield client


@pytest.fixture
async def outside(minio_server: Any) -> AsyncIterator[World]:
    """Somebody else, who administers the server by hand."""
    async with world(minio_server) as w:
        yield w


async def test_a_bucket_is_made_and_what_somebody_switches_off_is_back_long_before_the_next_sweep(
    client: CoreplaneClient, outside: World
):
    bucket = fresh("daemon")
    value = {"target": "main", "versioning": "enabled", "tags": {"team": "a"}}
    value["lifecycle"] = [{"id": "tmp", "prefix": "tmp/", "expire_days": 7}]
    made = await client.put_setting("storage.bucket", bucket, {"value": value}, wait="Ready", wait_s=30)
    assert made["status"]["phase"] == "Ready"
    assert model.versioned(await outside.raw(bucket, "versioning")).status == "enabled"

    await outside.put_raw(bucket, "versioning", model.versioning_document(model.Versioning("suspended")).decode())

    async def back() -> bool:
        return model.versioned(await outside.raw(bucket, "versioning")).status == "enabled"

    await until(back, REPAIR_S, "versioning is enabled again")

    async def told() -> list[Any]:
        page = await client.events(event_type="DriftDetected", setting=f"default/storage.bucket/{bucket}")
        return list(page["items"])

    drift = (await until(told, REPAIR_S, "the drift is an event"))[0]["details"]
    assert "/versioning" in str(drift)
    assert "suspended" in str(drift)


async def test_a_rule_that_is_declared_no_more_goes_and_those_of_others_stay(client: CoreplaneClient, outside: World):
    bucket = fresh("daemon")
    rules = [{"id": name, "prefix": f"{name}/", "expire_days": 7} for name in ("a", "b")]
    value = {"target": "main", "lifecycle": rules}
    await client.put_setting("storage.bucket", bucket, {"value": value}, wait="Ready", wait_s=30)
    held = (await outside.raw(bucket, "lifecycle")).decode().replace("</LifecycleConfiguration>", "")
    theirs = "<Rule><ID>c</ID><Status>Enabled</Status><Filter></Filter><Expiration><Days>1</Days></Expiration></Rule>"
    await outside.put_raw(bucket, "lifecycle", f"{held}{theirs}</LifecycleConfiguration>")
    value = {"target": "main", "lifecycle": rules[:1]}
    await client.put_setting("storage.bucket", bucket, {"value": value}, wait="Ready", wait_s=30)
    assert list(model.lifecycle.parsed(await outside.raw(bucket, "lifecycle")).rules) == ["a", "c"]


async def test_a_bucket_that_is_to_go_is_kept_unless_that_is_permitted_and_then_emptied_and_dropped(
    client: CoreplaneClient, outside: World
):
    bucket = fresh("daemon")
    value = {"target": "main", "versioning": "enabled"}
    await client.put_setting(
        "storage.bucket", bucket, {"value": value, "policy": {"deletion": "delete"}}, wait="Ready", wait_s=30
    )
    await outside.put_object(bucket, "invoice", b"1")
    await outside.put_object(bucket, "invoice", b"2")
    await client.delete_setting("storage.bucket", bucket)

    async def refused() -> bool:
        found = await client.get_setting("storage.bucket", bucket)
        return condition_of(found, "Stalled").get("reason") == "NotAllowed"

    await until(refused, REPAIR_S, "it says what would permit it")
    assert await outside.client.get(f"/{bucket}/invoice") == b"2"
    gone = f"{bucket}-gone"
    policy = {"deletion": "delete", "allow": ["EmptyBucket"]}
    await client.put_setting("storage.bucket", gone, {"value": value, "policy": policy}, wait="Ready", wait_s=30)
    await outside.put_object(gone, "invoice", b"1")
    await client.delete_setting("storage.bucket", gone, wait="Gone", wait_s=30)
    with pytest.raises(Refused, match="NoSuchBucket"):
        await outside.raw(gone, "versioning")


async def test_a_wrong_password_stalls_the_target_and_says_why(client: CoreplaneClient, minio_server: Any, daemon: Any):
    (daemon.data_dir / "secrets" / "wrong").write_text("not-the-password")
    await client.put_setting("storage.target", "other", {"value": target(minio_server.url, "wrong")})

    found = await phase(client, "storage.target", "other", "Stalled")
    assert condition_of(found, "Stalled")["reason"] == "SignatureDoesNotMatch"
    assert "not-the-password" not in str(found)


@pytest.mark.parametrize(
    ("setting_type", "field"),
    [("storage.policy", "document"), ("storage.bucket", "access")],
    ids=["of users", "of a bucket"],
)
async def test_a_policy_that_the_server_refuses_is_stalled_in_its_words_and_heals_when_it_is_mended(
    client: CoreplaneClient, setting_type: str, field: str
):
    name = fresh("policy")

    def value(action: str) -> dict[str, Any]:
        statement: dict[str, Any] = {"Effect": "Allow", "Action": action, "Resource": f"arn:aws:s3:::{name}/*"}
        statement |= {"Principal": "*"} if field == "access" else {}
        document = {"Version": "2012-10-17", "Statement": [statement]}
        return {"target": "main", field: {"policy": document} if field == "access" else document}

    await client.put_setting(setting_type, name, {"value": value("s3:NoSuchAction")})
    stalled = condition_of(await phase(client, setting_type, name, "Stalled"), "Stalled")
    assert stalled["reason"] in ("XMinioMalformedIAMPolicy", "MalformedPolicy")
    assert "NoSuchAction" in stalled["message"]
    await client.put_setting(setting_type, name, {"value": value("s3:GetObject")}, wait="Ready", wait_s=30)


async def test_a_membership_has_one_owner_and_the_second_says_conflict_until_the_first_lets_go(
    client: CoreplaneClient, outside: World, daemon: DaemonProcess
):
    (daemon.data_dir / "secrets" / "member").write_text("a-members-secret")
    user, own, other = fresh("u"), fresh("g"), fresh("g")
    member = {"target": "main", "secret_key": {"from_file": "secrets/member"}}

    async def members(group: str) -> list[str]:
        found = await outside.backend.observe({ExternalId("storage.group", group): None})
        return sorted(found[ExternalId("storage.group", group)].members)

    await client.put_setting("storage.group", own, {"value": {"target": "main"}}, wait="Ready", wait_s=30)
    await client.put_setting("storage.user", user, {"value": {**member, "groups": [own]}}, wait="Ready", wait_s=30)
    await client.put_setting("storage.group", other, {"value": {"target": "main", "members": [user]}})
    refused = condition_of(await phase(client, "storage.group", other, "Stalled"), "Stalled")
    assert refused["reason"] == "Conflict"
    assert f"storage.user/{user}" in refused["message"]
    assert await members(own) == [user]

    await client.put_setting("storage.user", user, {"value": member}, wait="Ready", wait_s=30)
    await phase(client, "storage.group", other, "Ready")
    assert await members(other) == [user]
    assert await members(own) == [user], "nobody owns that any more"

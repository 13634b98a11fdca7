"""Policies, users, groups and access keys on a real MinIO: who is declared may log in, and do just what is declared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from reconcilers.contract import Result
from reconcilers.storage import iam
from reconcilers.storage.s3 import Refused, bucket_path
from tests.integration.storage_world import (
    BUCKET,
    CONFIG,
    FIRST,
    GROUP,
    KEY,
    POLICY,
    SECOND,
    USER,
    World,
    as_user,
    fresh,
    may,
    reads,
    with_passwords,
    world,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


async def bucket_with_object(w: World) -> str:
    bucket = fresh("iam")
    await w.settled(BUCKET, {"bucket": bucket})
    await w.put_object(bucket, "in/report", b"1")
    return bucket


async def test_a_user_logs_in_and_may_do_what_its_policy_permits_and_nothing_else(minio_server: Any):
    name, policy = fresh("u"), fresh("p")
    async with world(minio_server, with_passwords(minio_server)) as w:
        bucket = await bucket_with_object(w)
        await w.settled(POLICY, {"policy": policy, "document": reads(bucket)})
        value = {"access_key": name, "secret_key": FIRST, "policies": [policy]}
        await w.settled(USER, value)
        assert await may(minio_server.url, name, "first-secret-1", "GET", f"/{bucket}/in/report") == "yes"
        assert await may(minio_server.url, name, "first-secret-1", "PUT", f"/{bucket}/in/report") == "AccessDenied"
        assert (
            await may(minio_server.url, name, "wrong-secret", "GET", f"/{bucket}/in/report") == "SignatureDoesNotMatch"
        )

        await w.settled(USER, {**value, "enabled": False})
        assert await may(minio_server.url, name, "first-secret-1", "GET", f"/{bucket}/in/report") != "yes"
        await w.settled(USER, {**value, "enabled": False, "secret_key": SECOND})
        assert await may(minio_server.url, name, "second-secret-2", "GET", f"/{bucket}/in/report") != "yes", (
            "still disabled"
        )
        await w.settled(USER, {**value, "secret_key": SECOND})
        assert await may(minio_server.url, name, "second-secret-2", "GET", f"/{bucket}/in/report") == "yes"
        assert (
            await may(minio_server.url, name, "first-secret-1", "GET", f"/{bucket}/in/report")
            == "SignatureDoesNotMatch"
        )

        await w.settled(USER, {**value, "secret_key": SECOND, "policies": []})
        assert await may(minio_server.url, name, "second-secret-2", "GET", f"/{bucket}/in/report") == "AccessDenied"


async def test_a_policy_is_the_same_in_any_order_and_is_put_back_when_it_is_changed(minio_server: Any):
    policy = fresh("p")
    async with world(minio_server, with_passwords(minio_server)) as w:
        await w.settled(POLICY, {"policy": policy, "document": reads("some")})
        for _ in range(20):  # the order changes from one answer to the next
            assert (await w.look(POLICY, {"policy": policy, "document": reads("some")})).converged
        body = (
            b'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["s3:*"],"Resource":["arn:aws:s3:::*"]}]}'
        )
        await w.client.admin("PUT", "add-canned-policy", {"name": policy}, body)
        plan = await w.look(POLICY, {"policy": policy, "document": reads("some")})
        assert [d.path for d in plan.differences] == ["/document"]
        await w.settled(POLICY, {"policy": policy, "document": reads("some")})


async def test_a_user_waits_for_the_policy_and_the_group_that_it_is_to_have(minio_server: Any):
    name, policy, group = fresh("u"), fresh("p"), fresh("g")
    value = {"access_key": name, "secret_key": FIRST, "policies": [policy], "groups": [group]}
    async with world(minio_server, with_passwords(minio_server)) as w:
        made, joined = await w.declare(USER, value)
        assert made.result is Result.SUCCEEDED
        assert joined.error is not None
        assert joined.error.reason == "XMinioAdminNoSuchGroup"
        plan = await w.look(USER, value)
        assert plan.steps == ()
        assert plan.wait_reason == f"waits for group {group}, policy {policy}"
        await w.settled(POLICY, {"policy": policy, "document": reads("some")})
        await w.settled(GROUP, {"group": group})
        await w.settled(USER, value)


async def test_what_a_group_permits_its_members_may_as_long_as_it_is_enabled(minio_server: Any):
    name, policy, group = fresh("u"), fresh("p"), fresh("g")
    async with world(minio_server, with_passwords(minio_server)) as w:
        bucket = await bucket_with_object(w)
        await w.settled(POLICY, {"policy": policy, "document": reads(bucket)})
        await w.settled(USER, {"access_key": name, "secret_key": FIRST})
        value = {"group": group, "members": [name], "policies": [policy]}
        await w.settled(GROUP, value)
        assert await may(minio_server.url, name, "first-secret-1", "GET", f"/{bucket}/in/report") == "yes"
        await w.settled(GROUP, {**value, "enabled": False})
        assert await may(minio_server.url, name, "first-secret-1", "GET", f"/{bucket}/in/report") == "AccessDenied"
        await w.settled(GROUP, {**value, "members": []})
        refused = await w.take(await w.look(POLICY, {"policy": policy, "document": reads(bucket)}, retiring=True))
        assert refused[0].result is Result.FAILED, "the group has it"
        await w.take(await w.look(GROUP, value, retiring=True))
        assert (await w.look(GROUP, value, retiring=True)).converged
        assert (await w.take(await w.look(POLICY, {"policy": policy, "document": reads(bucket)}, retiring=True)))[
            0
        ].result is Result.SUCCEEDED


async def test_an_access_key_has_no_more_rights_than_declared_also_after_every_change(minio_server: Any):
    """An update without the policy would silently give it all rights of its user."""
    name, key = fresh("u"), fresh("k")
    async with world(minio_server, with_passwords(minio_server)) as w:
        bucket = await bucket_with_object(w)
        await w.settled(USER, {"access_key": name, "secret_key": FIRST, "policies": ["readwrite"]})
        value: dict[str, Any] = {"access_key": key, "user": name, "secret_key": SECOND, "policy": reads(bucket, "in/")}
        await w.settled(KEY, value)
        later = (datetime.now(UTC) + timedelta(days=30)).isoformat(timespec="seconds")
        for change in (
            {"enabled": False},
            {"description": "reports"},
            {"expires_at": later},
            {"secret_key": FIRST},
            {"secret_key": SECOND},
        ):
            await w.settled(KEY, {**value, **change})
            await w.settled(KEY, value)
            assert await may(minio_server.url, key, "second-secret-2", "GET", f"/{bucket}/in/report") == "yes", change
            assert (
                await may(minio_server.url, key, "second-secret-2", "PUT", f"/{bucket}/in/report") == "AccessDenied"
            ), change
        whole = {**value, "policy": None}
        await w.settled(KEY, whole)
        assert await may(minio_server.url, key, "second-secret-2", "PUT", f"/{bucket}/in/report") == "yes"
        await w.settled(KEY, value)
        await w.take(await w.look(KEY, value, retiring=True))
        assert (
            await may(minio_server.url, key, "second-secret-2", "GET", f"/{bucket}/in/report") == "InvalidAccessKeyId"
        )


async def test_a_rotation_has_an_overlap_when_each_program_has_an_access_key(minio_server: Any):
    name, old, new = fresh("u"), fresh("k"), fresh("k")
    async with world(minio_server, with_passwords(minio_server)) as w:
        bucket = await bucket_with_object(w)
        await w.settled(USER, {"access_key": name, "secret_key": FIRST, "policies": ["readonly"]})
        await w.settled(KEY, {"access_key": old, "user": name, "secret_key": FIRST})
        await w.settled(KEY, {"access_key": new, "user": name, "secret_key": SECOND})
        path = f"/{bucket}/in/report"
        assert await may(minio_server.url, old, "first-secret-1", "GET", path) == "yes"
        assert await may(minio_server.url, new, "second-secret-2", "GET", path) == "yes"
        await w.take(await w.look(KEY, {"access_key": old, "user": name, "secret_key": FIRST}, retiring=True))
        assert await may(minio_server.url, old, "first-secret-1", "GET", path) == "InvalidAccessKeyId"
        assert await may(minio_server.url, new, "second-secret-2", "GET", path) == "yes"


async def test_the_key_of_another_user_is_blocked_and_one_that_expires_at_once_too(minio_server: Any):
    name, key = fresh("u"), fresh("k")
    async with world(minio_server, with_passwords(minio_server)) as w:
        await w.settled(USER, {"access_key": name, "secret_key": FIRST})
        await w.settled(KEY, {"access_key": key, "user": name, "secret_key": SECOND})
        blocked = (await w.look(KEY, {"access_key": key, "user": "somebody", "secret_key": SECOND})).blocked
        assert blocked is not None
        assert blocked.reason == "KeyOfAnother"
        soon = {"access_key": fresh("k"), "user": name, "secret_key": SECOND, "expires_at": "1970-01-01T00:00:00Z"}
        expired = (await w.look(KEY, soon)).blocked
        assert expired is not None
        assert expired.reason == "Expired"


async def test_no_secret_leaves_the_look_at_the_export(minio_server: Any):
    name, key = fresh("u"), fresh("k")
    async with world(minio_server, with_passwords(minio_server)) as w:
        user = {"access_key": name, "secret_key": FIRST}
        await w.settled(USER, user)
        await w.settled(KEY, {"access_key": key, "user": name, "secret_key": FIRST})
        for plan in (
            await w.look(USER, {**user, "secret_key": SECOND}),
            await w.look(KEY, {"access_key": key, "user": name, "secret_key": SECOND}),
        ):
            assert [d.path for d in plan.differences] == ["/secret_key"]
            told = repr(plan) + repr([step.details() for step in plan.steps])
            assert "first-secret-1" not in told
            assert "second-secret-2" not in told
        export = iam._Export(await w.backend._iam._exported())
        assert "first-secret-1" not in repr(export)


@pytest.mark.parametrize(
    ("subsystem", "settings"),
    [
        ("api", {"requests_max": 1600, "stale_uploads_expiry": "48h"}),
        ("api", {"cors_allow_origin": "https://a.example,https://b.example"}),
        ("scanner", {"speed": "slow"}),
    ],
)
async def test_parameters_of_the_server_are_set_and_found_again(
    minio_server: Any, subsystem: str, settings: dict[str, Any]
):
    async with world(minio_server, with_passwords(minio_server)) as w:
        before = await w.look(CONFIG, {"subsystem": subsystem, "settings": settings})
        await w.settled(CONFIG, {"subsystem": subsystem, "settings": settings})
        back = {difference.path.rpartition("/")[2]: difference.observed for difference in before.differences}
        if back:
            await w.settled(CONFIG, {"subsystem": subsystem, "settings": back})
        assert (await w.look(CONFIG, {"subsystem": subsystem, "settings": settings}, retiring=True)).converged


async def test_a_parameter_or_a_subsystem_that_does_not_exist_is_said(minio_server: Any):
    async with world(minio_server, with_passwords(minio_server)) as w:
        plan = await w.look(CONFIG, {"subsystem": "api", "settings": {"no_such": "1"}})
        assert plan.blocked is not None
        assert plan.blocked.reason == "UnknownParameter"
        with pytest.raises(Exception, match="unknown subsystem"):
            await w.look(CONFIG, {"subsystem": "nonsense", "settings": {"a": "1"}})


async def test_without_the_right_to_administer_it_is_a_plain_s3_server(minio_server: Any):
    name, policy = fresh("u"), fresh("p")
    s3 = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "arn:aws:s3:::*"}]}
    async with world(minio_server, with_passwords(minio_server)) as w:
        await w.settled(POLICY, {"policy": policy, "document": s3})
        await w.settled(USER, {"access_key": name, "secret_key": FIRST, "policies": [policy]})
        async with as_user(minio_server, name, "first-secret-1") as plain:
            for kind in (POLICY, USER, GROUP, KEY, CONFIG):
                assert "admin API" in str(plain.backend.unsupported(kind))
            assert plain.backend.unsupported(BUCKET) is None
            bucket = fresh("plain")
            value = {"bucket": bucket, "versioning": "enabled", "tags": {"a": "1"}, "access": "public-read"}
            value["lifecycle"] = [{"id": "tmp", "expire_days": 7}]
            await plain.settled(BUCKET, value)
            blocked = (await plain.look(BUCKET, {"bucket": bucket, "quota_bytes": 5})).blocked
            assert blocked is not None
            assert blocked.reason == "Unsupported"
            await plain.put_object(bucket, "o", b"1")
            while not (plan := await plain.look(BUCKET, value, retiring=True)).converged:
                for outcome in await plain.take(plan):
                    assert outcome.error is None, outcome.error
            with pytest.raises(Refused, match="NoSuchBucket"):
                await w.client.get(bucket_path(bucket), {"versioning": ""})

"""What exists on a real MinIO is found as declarations that converge without a write; what it tells of itself is sampled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.devstack.guardian import Guardian
from controlplane.devstack.minio import MINIO
from reconcilers.storage import model
from reconcilers.storage.s3 import Request
from reconcilers.storage.survey import Survey
from tests.e2e.conditions import until
from tests.integration.storage_world import BUCKET, FIRST, GROUP, KEY, POLICY, USER, fresh, reads, with_passwords, world
from tests.servers import started, with_environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


async def test_buckets_converge_as_they_are_found(minio_server: Any):
    prefix = fresh("found")
    values: list[dict[str, Any]] = [
        {},
        {"versioning": "enabled", "excluded_prefixes": ["tmp/*"], "tags": {"a": "1"}, "quota_bytes": 5_000_000},
        {"object_lock": True, "retention": {"mode": "governance", "days": 3}, "access": "public-read"},
        {
            "lifecycle": [{"id": "t", "prefix": "p/", "tags": {"k": "v"}, "expire_days": 7}],
            "access": "public-read-write",
        },
        {"access": "private"},
    ]
    async with world(minio_server) as w:
        for number, value in enumerate(values):
            await w.settled(BUCKET, {"bucket": f"{prefix}-{number}", **value})
        found = await w.backend.discover(BUCKET, f"{prefix}-*")
        assert [one.name for one in found] == [f"{prefix}-{number}" for number in range(len(values))]
        for one, value in zip(found, values, strict=True):
            assert one.undeclarable is None
            assert (await w.look(BUCKET, one.value, one.name)).converged
            told = {name: one.value.get(name) for name in value if name != "lifecycle"}
            assert told == {name: wanted for name, wanted in value.items() if name != "lifecycle"}


async def test_users_policies_groups_and_keys_converge_as_they_are_found_once_their_secrets_are_filled_in(
    minio_server: Any,
):
    user, policy, group, key = fresh("u"), fresh("p"), fresh("g"), fresh("k")
    async with world(minio_server, with_passwords(minio_server)) as w:
        await w.settled(POLICY, {"policy": policy, "document": reads("some")})
        await w.settled(GROUP, {"group": group, "policies": [policy]})
        await w.settled(USER, {"access_key": user, "secret_key": FIRST, "policies": [policy], "groups": [group]})
        await w.settled(KEY, {"access_key": key, "user": user, "secret_key": FIRST, "policy": reads("some", "x/")})
        for kind, name in ((POLICY, policy), (GROUP, group), (USER, user), (KEY, key)):
            (one,) = await w.backend.discover(kind, name)
            value = dict(one.value)
            assert ("/secret_key" in one.fill_in) == (kind in (USER, KEY))
            if one.fill_in:
                assert value["secret_key"] == {"from_file": f"secrets/{name}"}
                assert "first-secret-1" not in str(one)
                value["secret_key"] = FIRST
            assert (await w.look(kind, value, one.name)).converged, kind
        assert "readonly" not in {one.name for one in await w.backend.discover(POLICY, "*")}
        assert [one.name for one in await w.backend.discover(POLICY, "readonly")] == ["readonly"]


async def test_a_sample_has_what_people_ask_for(minio_server: Any):
    bucket = fresh("sampled")
    async with world(minio_server) as w:
        await w.settled(BUCKET, {"bucket": bucket, "access": "public-read", "quota_bytes": 9_000_000})
        measured = {(one.metric_type, one.tags.get("bucket")): one.value for one in await w.backend.sample()}
        assert measured["bucket_public", bucket] == 1
        assert measured["bucket_quota_bytes", bucket] == 9_000_000
        assert measured["capacity_bytes", None] > measured["free_bytes", None] > 0
        assert measured["requests_total", None] > 0
        assert measured["drives_online", None] == 1
        await w.client.delete(f"/{bucket}", {"policy": ""}, None)
        await w.look(BUCKET, {"bucket": bucket})
        assert dict(w.backend._buckets.seen())[bucket].access == model.policies.NOTHING


async def test_a_walk_tells_what_is_cold_what_will_expire_and_which_uploads_were_never_finished(
    minio_server: Any,
):
    bucket = fresh("walked")
    rules = [{"id": "soon", "prefix": "soon/", "expire_days": 2}, {"id": "late", "prefix": "late/", "expire_days": 60}]
    async with world(minio_server) as w:
        await w.settled(BUCKET, {"bucket": bucket, "lifecycle": rules})
        for key in ("late/1", "late/2", "other", "soon/1", "soon/2"):
            await w.put_object(bucket, key, b"12345")
        for key in ("soon/1", "big"):
            await w.client.call(Request("POST", f"/{bucket}/{key}", {"uploads": ""}))
        held = dict(w.backend._buckets.seen())

        async def told(survey: Survey) -> dict[str, float]:
            return {one.metric_type: one.value for one in await survey.look([(bucket, held[bucket])])}

        survey = Survey(w.client, page=2)
        assert await told(survey) == {}, "two pages of three: it isn't at the end yet"
        assert await told(survey) == {
            "bucket_cold_objects": 0,
            "bucket_cold_bytes": 0,
            "bucket_expiring_versions": 2,
            "bucket_expiring_bytes": 10,
            "bucket_incomplete_uploads": 2,
        }
        found = await told(Survey(w.client, cold_s=-60))
        assert (found["bucket_cold_objects"], found["bucket_cold_bytes"]) == (5, 25)
        assert {one.metric_type for one in await w.backend.sample()} >= {"bucket_cold_bytes", "capacity_bytes"}


async def test_what_the_rules_removed_is_counted(tmp_path: Any, guardian: Guardian, minio_program: Any):
    hurried = with_environment(MINIO, MINIO_SCANNER_CYCLE="1s", MINIO_SCANNER_SPEED="fastest")
    server: Any = await started(hurried, tmp_path, minio_program, guardian)
    async with world(server) as w:
        await w.settled(BUCKET, {"bucket": "expires"})
        for key in ("old/1", "old/2", "kept"):
            await w.put_object("expires", key)
        date = "<Expiration><Date>2020-01-01T00:00:00Z</Date></Expiration>"
        rule = f"<Rule><ID>x</ID><Status>Enabled</Status><Filter><Prefix>old/</Prefix></Filter>{date}</Rule>"
        await w.put_raw("expires", "lifecycle", f"<LifecycleConfiguration>{rule}</LifecycleConfiguration>")

        async def removed() -> bool:
            rows = {one.metric_type: one.value for one in await w.backend.sample()}
            return rows["lifecycle_removed_total"] == 2

        await until(removed, 120, "the server's scanner came by")
    await server.kill()


async def test_huge_buckets_hold_up_no_walk_of_others_and_are_gone_on_with_where_it_was(minio_server: Any):
    huge, small = [fresh("huge") for _ in range(6)], fresh("small")
    async with world(minio_server) as w:
        for bucket in (*huge, small):
            await w.settled(BUCKET, {"bucket": bucket})
        for number in range(10):
            await asyncio.gather(*(w.put_object(bucket, f"{number}", b"12345") for bucket in huge))
        await w.put_object(small, "only", b"1")
        seen = dict(w.backend._buckets.seen())
        held = [(bucket, seen[bucket]) for bucket in (*huge, small)]
        survey = Survey(w.client, cold_s=-60, page=1)
        ended = dict[str, tuple[int, float]]()
        for look in range(1, 20):
            for one in await survey.look(held):
                if one.metric_type == "bucket_cold_objects":
                    ended[one.tags["bucket"]] = (look, one.value)
        assert ended.pop(small) == (2, 1), "after the five that came before it"
        assert sorted(ended) == sorted(huge)
        assert {count for _, count in ended.values()} == {10}, "nothing is counted twice, or left out"
        assert max(look for look, _ in ended.values()) <= 7, "sixty pages and one, ten each time"

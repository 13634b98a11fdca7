"""Buckets on a real MinIO: every field converges at once, is repaired, and leaves what belongs to others alone."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.devstack.guardian import Guardian
from controlplane.devstack.minio import MINIO
from reconcilers.contract import ExternalId, Result
from reconcilers.storage import model
from reconcilers.storage.s3 import Refused, Request, bucket_path
from reconcilers.storage.steps import SetLifecycle
from schemas.storage import Bucket, LifecycleRule, Retention
from tests.integration.storage_world import BUCKET, World, fresh, world
from tests.servers import started, with_environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

READ_ONLY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "a",
            "Effect": "Allow",
            "Principal": "*",
            "Action": ["s3:GetObject", "s3:GetObject"],
            "Resource": "arn:aws:s3:::BUCKET/pub/*",
            "Condition": {"StringLike": {"aws:Referer": ["https://b.example/*", "https://a.example/*"]}},
        },
        {
            "Sid": "b",
            "Effect": "Allow",
            "Principal": {"AWS": "*"},
            "Action": "s3:GetObject",
            "Resource": ["arn:aws:s3:::BUCKET/pub/*"],
            "Condition": {"StringLike": {"aws:Referer": ["https://a.example/*", "https://b.example/*"]}},
        },
    ],
}
FIELDS: list[dict[str, Any]] = [
    {},
    {"versioning": "enabled"},
    {"versioning": "suspended"},
    {"versioning": "off"},
    {"versioning": "enabled", "excluded_prefixes": ["tmp/*", "a/*"], "exclude_folders": True},
    {"object_lock": True},
    {"object_lock": True, "versioning": "enabled", "retention": {"mode": "governance", "days": 3}},
    {"object_lock": True, "retention": {"mode": "compliance", "years": 1}},
    {"quota_bytes": 10_000_000},
    {"quota_bytes": 0},
    {"tags": {"team": "billing", "a b": "c+d@e"}},
    {"tags": {}},
    {"access": "private"},
    {"access": "public-read"},
    {"access": "public-read-write"},
    {"access": {"policy": READ_ONLY}},
    {"lifecycle": []},
    {"lifecycle": [{"id": "tmp", "prefix": "tmp/", "expire_days": 7}]},
    {"lifecycle": [{"id": "all", "expire_days": 1}, {"id": "off", "enabled": False, "expire_days": 2}]},
    {"lifecycle": [{"id": "t", "tags": {"k": "v"}, "expire_days": 7}]},
    {"lifecycle": [{"id": "t", "prefix": "p&<>/", "tags": {"k": "v", "a": "b"}, "expire_days": 7}]},
    {"lifecycle": [{"id": "s", "larger_than_bytes": 10, "expire_days": 7}]},
    {"lifecycle": [{"id": "s", "larger_than_bytes": 10, "smaller_than_bytes": 99, "prefix": "z/", "expire_days": 7}]},
    {"lifecycle": [{"id": "n", "noncurrent_days": 30, "noncurrent_keep": 3}]},
    {"lifecycle": [{"id": "n", "noncurrent_keep": 3}, {"id": "m", "expired_delete_marker": True}]},
]


ELSEWHERE = {
    "encryption": "test_buckets_are_encrypted_where_there_is_a_key",
    "notifications": "test_storage_notifications.py",
    "replication": "test_storage_replication.py",
    "transition": "test_storage_replication.py",
}
"""Fields that need more than the run's server: the test, or the file, that has them converge."""
REFUSED = {"abort_multipart_days"}
"""Fields that only explain themselves."""


def test_no_field_of_a_bucket_is_left_out():
    rules = [rule for fields in FIELDS for rule in fields.get("lifecycle", ())]
    retentions = [fields["retention"] for fields in FIELDS if "retention" in fields]
    for model_class, values in ((Bucket, FIELDS), (LifecycleRule, rules), (Retention, retentions)):
        left = set(model_class.model_fields) - {name for value in values for name in value} - set(ELSEWHERE) - REFUSED
        assert left <= {"target", "bucket"}, f"have {model_class.__name__} converge with: {left}"


@pytest.fixture
async def keyed_server(tmp_path: Any, minio_program: Any, guardian: Guardian) -> AsyncIterator[Any]:
    """A MinIO that holds a key by itself."""
    key = f"shop-key:{base64.b64encode(bytes(32)).decode()}"
    server = await started(with_environment(MINIO, MINIO_KMS_SECRET_KEY=key), tmp_path, minio_program, guardian)
    yield server
    await server.kill()


async def test_buckets_are_encrypted_where_there_is_a_key(keyed_server: Any):
    async with world(keyed_server) as w:
        for encryption, algorithm in (({"kms_key": "shop-key"}, b"aws:kms"), ("sse-s3", b"AES256")):
            await w.settled(BUCKET, {"bucket": "sealed", "encryption": encryption})
            assert algorithm in await w.raw("sealed", "encryption")
        await w.put_object("sealed", "o", b"secret")
        reply = await w.client.call(Request("GET", "/sealed/o"))
        assert (reply.body, reply.headers["x-amz-server-side-encryption"]) == (b"secret", "AES256")


async def drop(world: World, bucket: str) -> None:
    await world.client.call(Request("DELETE", bucket_path(bucket), headers={"x-minio-force-delete": "true"}))


@pytest.mark.parametrize("fields", FIELDS, ids=str)
async def test_every_field_converges_at_once_and_a_second_pass_does_nothing(minio_server: Any, fields: dict[str, Any]):
    bucket = fresh()
    value = {"bucket": bucket, **fields}
    if isinstance(fields.get("access"), dict):
        value["access"] = {"policy": _named(READ_ONLY, bucket)}
    async with world(minio_server) as w:
        await w.settled(BUCKET, value)
        async with world(minio_server) as other:
            assert (await other.look(BUCKET, value)).converged, "another observer sees the same"


def _named(document: Any, bucket: str) -> Any:
    if isinstance(document, dict):
        return {key: _named(value, bucket) for key, value in document.items()}
    if isinstance(document, list):
        return [_named(value, bucket) for value in document]
    return document.replace("BUCKET", bucket) if isinstance(document, str) else document


async def test_what_is_changed_by_hand_is_a_difference_with_its_path_and_is_put_back(minio_server: Any):
    bucket = fresh()
    value = {
        "bucket": bucket,
        "versioning": "enabled",
        "tags": {"team": "billing"},
        "lifecycle": [{"id": "tmp", "prefix": "tmp/", "expire_days": 7}],
        "quota_bytes": 5_000_000,
        "access": "public-read",
    }
    async with world(minio_server) as w:
        await w.settled(BUCKET, value)
        await w.put_raw(bucket, "versioning", model.versioning_document(model.Versioning("suspended")).decode())
        await w.put_raw(bucket, "tagging", model.tags_document([("team", "other")]).decode())
        await w.client.delete(bucket_path(bucket), {"lifecycle": ""}, None)
        await w.client.delete(bucket_path(bucket), {"policy": ""}, None)
        await w.client.admin("PUT", "set-bucket-quota", {"bucket": bucket}, b'{"quota": 0}')
        plan = await w.look(BUCKET, value)
        assert {(d.path, d.observed) for d in plan.differences if d.path != "/access"} == {
            ("/versioning", "suspended"),
            ("/tags/team", "other"),
            ("/lifecycle/tmp", None),
            ("/quota_bytes", 0),
        }
        await w.settled(BUCKET, value)


async def test_rules_tags_and_notifications_of_others_stay_and_only_our_own_former_ones_go(minio_server: Any):
    bucket = fresh()
    ours = [{"id": "tmp", "prefix": "tmp/", "expire_days": 7}, {"id": "old", "prefix": "old/", "expire_days": 9}]
    foreign = (
        "<Rule><ID>theirs</ID><Status>Enabled</Status><Filter><Prefix>x/</Prefix></Filter>"
        "<Expiration><Days>5</Days><ExpiredObjectAllVersions>true</ExpiredObjectAllVersions></Expiration></Rule>"
    )
    async with world(minio_server) as w:
        await w.settled(BUCKET, {"bucket": bucket})
        await w.put_raw(bucket, "lifecycle", f"<LifecycleConfiguration>{foreign}</LifecycleConfiguration>")
        await w.put_raw(bucket, "tagging", model.tags_document([("theirs", "1")]).decode())
        await w.settled(BUCKET, {"bucket": bucket, "lifecycle": ours, "tags": {"a": "1", "b": "2"}})
        assert b"ExpiredObjectAllVersions" in await w.raw(bucket, "lifecycle")
        plan = await w.look(BUCKET, {"bucket": bucket, "lifecycle": ours[:1], "tags": {"b": "3"}})
        assert {(d.path, d.desired) for d in plan.differences} == {
            ("/lifecycle/old", None),
            ("/tags/a", None),
            ("/tags/b", "3"),
        }
        await w.settled(BUCKET, {"bucket": bucket, "lifecycle": ours[:1], "tags": {"b": "3"}})
        held = await w.raw(bucket, "lifecycle")
        assert b"<ID>old</ID>" not in held
        assert b"<ID>tmp</ID>" in held
        assert b"<ID>theirs</ID>" in held
        assert model.tagged(await w.raw(bucket, "tagging")) == (("b", "3"), ("theirs", "1"))


async def test_many_buckets_are_seen_by_one_request_and_parsed_once(minio_server: Any):
    buckets = [fresh("many") for _ in range(20)]
    async with world(minio_server) as w:
        for bucket in buckets:
            await w.settled(BUCKET, {"bucket": bucket, "versioning": "enabled"})
        wanted = {w_external(bucket): w_desired(bucket) for bucket in buckets}
        asked: list[Request] = []
        call = w.client.call

        async def counted(request: Request) -> Any:
            asked.append(request)
            return await call(request)

        w.client.call = counted  # type: ignore[method-assign]
        first = await w.backend.observe(wanted)
        second = await w.backend.observe(wanted)
        assert len(asked) == 2
        assert all(first[external] is second[external] for external in wanted), "parsed once"


def w_external(bucket: str) -> ExternalId:
    return ExternalId(BUCKET, bucket)


def w_desired(bucket: str) -> model.Bucket:
    return model.Bucket(bucket, versioning=model.Versioning("enabled"))


async def test_changes_of_one_bucket_sent_at_once_lose_each_other_and_ours_do_not(minio_server: Any):
    """The server acknowledges all; the backend sends one after the other, whatever it is asked for at once."""
    async with world(minio_server) as w:
        value = {"versioning": "enabled", "tags": {"a": "1"}, "access": "public-read"}
        value["lifecycle"] = [{"id": "tmp", "expire_days": 7}]
        buckets = [fresh("race") for _ in range(12)]
        for bucket in buckets:
            await w.settled(BUCKET, {"bucket": bucket})
        plans = [await w.look(BUCKET, {"bucket": bucket, **value}) for bucket in buckets]
        steps = [step for plan in plans for step in plan.steps]
        outcomes = await w.backend.apply(steps, w.fence)
        assert {outcome.result for outcome in outcomes} == {Result.SUCCEEDED}
        for bucket in buckets:
            assert (await w.look(BUCKET, {"bucket": bucket, **value})).converged


async def test_the_server_itself_loses_changes_that_are_sent_at_once(minio_server: Any):
    """Why there is a lock: should this fail one day, the server has learnt it."""
    async with world(minio_server) as w:
        lost = 0
        for _ in range(150):
            bucket = fresh("loss")
            await w.client.call(Request("PUT", bucket_path(bucket)))
            await asyncio.gather(
                w.put_raw(bucket, "versioning", model.versioning_document(model.Versioning("enabled")).decode()),
                w.put_raw(bucket, "tagging", model.tags_document([("a", "1")]).decode()),
                w.put_raw(
                    bucket,
                    "lifecycle",
                    "<LifecycleConfiguration><Rule><ID>t</ID><Status>Enabled</Status>"
                    "<Filter><Prefix></Prefix></Filter><Expiration><Days>1</Days></Expiration></Rule>"
                    "</LifecycleConfiguration>",
                ),
            )
            held = await w.backend.observe({w_external(bucket): w_desired(bucket)})
            seen = held[w_external(bucket)]
            lost += seen.versioning.status != "enabled" or not seen.tags or not seen.rules.rules
            if lost:
                break
        assert lost


@pytest.mark.parametrize(
    ("made", "wanted", "reason"),
    [
        ({"versioning": "enabled"}, {"versioning": "off"}, "VersioningStays"),
        ({}, {"object_lock": True}, "ObjectLockImpossible"),
        ({"object_lock": True}, {"versioning": "suspended"}, "LockNeedsVersioning"),
    ],
)
async def test_what_the_server_can_not_go_back_to_is_blocked_with_its_reason(
    minio_server: Any, made: dict[str, Any], wanted: dict[str, Any], reason: str
):
    bucket = fresh()
    async with world(minio_server) as w:
        await w.settled(BUCKET, {"bucket": bucket, **made})
        plan = await w.look(BUCKET, {"bucket": bucket, **wanted})
        while plan.steps:  # versioning comes with the lock
            await w.take(plan)
            plan = await w.look(BUCKET, {"bucket": bucket, **wanted})
        assert plan.blocked is not None
        assert plan.blocked.reason == reason


@pytest.mark.parametrize(
    ("fields", "reason", "said"),
    [
        ({"encryption": "sse-s3"}, "NotImplemented", "KMS is not configured"),
        (
            {"lifecycle": [{"id": "t", "transition": {"days": 1, "tier": "COLD"}}]},
            "InvalidStorageClass",
            "storage class",
        ),
        ({"access": {"policy": {"Version": "2012-10-17", "Statement": [{"Effect": "Allow"}]}}}, "MalformedPolicy", ""),
        (
            {"notifications": [{"id": "n", "arn": "arn:minio:sqs::x:webhook", "events": ["s3:ObjectCreated:*"]}]},
            "InvalidArgument",
            "",
        ),
    ],
)
async def test_what_the_server_refuses_says_its_own_words(
    minio_server: Any, fields: dict[str, Any], reason: str, said: str
):
    bucket = fresh()
    async with world(minio_server) as w:
        outcomes = await w.declare(BUCKET, {"bucket": bucket, **fields})
        assert outcomes[0].result is Result.SUCCEEDED
        error = outcomes[-1].error
        assert error is not None
        assert error.reason == reason
        assert said.lower() in error.message.lower()


async def test_a_plan_says_what_a_rule_would_remove_today(minio_server: Any):
    bucket = fresh()
    async with world(minio_server) as w:
        await w.settled(BUCKET, {"bucket": bucket, "versioning": "enabled"})
        for version in (b"a", b"bb", b"ccc"):
            await w.put_object(bucket, "tmp/report", version)
        await w.put_object(bucket, "tmp/other", b"dddd")
        rules = [{"id": "keep-one", "prefix": "tmp/", "noncurrent_keep": 1}, {"id": "week", "expire_days": 7}]
        plan = await w.look(BUCKET, {"bucket": bucket, "versioning": "enabled", "lifecycle": rules})
        (step,) = plan.steps
        assert isinstance(step, SetLifecycle)
        told = step.details()["expires_today"]
        assert told["keep-one"] == {"objects": 1, "size_bytes": 1, "complete": True}
        assert told["week"] == {"objects": 0, "size_bytes": 0, "complete": True}
        assert "keep-one (removes 1 objects, 1 bytes today)" in step.summary()


async def test_a_bucket_is_frozen_emptied_and_dropped_and_goes_on_where_it_was(minio_server: Any):
    bucket = fresh()
    value = {"bucket": bucket, "versioning": "enabled"}
    async with world(minio_server) as w:
        await w.settled(BUCKET, value)
        for number in range(5):
            await w.put_object(bucket, f"o{number}", b"old")
            await w.put_object(bucket, f"o{number}", b"new")
        await w.client.delete(f"{bucket_path(bucket)}/o1", (), None)
        plan = await w.look(BUCKET, value, retiring=True)
        assert [(step.name, step.irreversible) for step in plan.steps] == [
            ("FreezeBucket", False),
            ("EmptyBucket", True),
        ]
        (frozen,) = await w.backend.apply(plan.steps[:1], w.fence)
        assert frozen.result is Result.SUCCEEDED
        with pytest.raises(Refused, match="QuotaExceeded"):
            await w.put_object(bucket, "late", b"nobody writes here any more")
        plan = await w.look(BUCKET, value, retiring=True)
        assert [step.name for step in plan.steps] == ["EmptyBucket"], "frozen already"
        (emptied,) = await w.take(plan)
        assert emptied.details == {"removed": 11}
        plan = await w.look(BUCKET, value, retiring=True)
        assert [step.name for step in plan.steps] == ["DropBucket"]
        await w.drop(plan)
        assert (await w.look(BUCKET, value, retiring=True)).converged
        assert (await w.look(BUCKET, value)).steps[0].name == "CreateBucket"


async def test_a_version_that_is_locked_keeps_its_bucket_and_is_named(minio_server: Any):
    bucket = fresh()
    value = {"bucket": bucket, "object_lock": True, "retention": {"mode": "compliance", "days": 1}}
    async with world(minio_server) as w:
        await w.settled(BUCKET, value)
        await w.put_object(bucket, "contract.pdf", b"signed")
        outcomes = await w.take(await w.look(BUCKET, value, retiring=True))
        error = outcomes[-1].error
        assert error is not None
        assert error.reason == "ObjectLocked"
        assert "contract.pdf" in error.message

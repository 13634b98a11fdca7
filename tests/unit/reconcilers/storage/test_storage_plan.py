"""The planner of buckets as tables, the trace, and what rules would remove."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from reconcilers.contract import ExternalId, Hint
from reconcilers.storage import lifecycle, model, parameters, policies, trace
from reconcilers.storage.lifecycle import DAY_S, Expiring, Rule, Version, expiring
from reconcilers.storage.model import Contents, HeldBucket, Versioning
from reconcilers.storage.parameters import HeldConfig, line_of, parsed, target_of
from reconcilers.storage.plan import plan_bucket
from reconcilers.storage.steps import SetLifecycle
from schemas.storage import Bucket, Target

B = ExternalId("storage.bucket", "b")


def planned(value: dict[str, Any], held: HeldBucket | None) -> list[str]:
    plan = plan_bucket(B, model.declared("b", Bucket.model_validate({"target": "main", **value})), held, 0.0)
    return [step.name for step in plan.steps]


@pytest.mark.parametrize(
    ("value", "held", "steps"),
    [
        ({}, None, ["CreateBucket"]),
        ({}, HeldBucket(versioning=Versioning("enabled")), []),
        ({"versioning": "off"}, HeldBucket(), []),
        ({"versioning": "enabled"}, None, ["CreateBucket", "SetVersioning"]),
        ({"object_lock": True}, None, ["CreateBucket"]),
        (
            {"versioning": "enabled", "excluded_prefixes": ["a"]},
            HeldBucket(versioning=Versioning("enabled")),
            ["SetVersioning"],
        ),
        ({"quota_bytes": 0}, HeldBucket(quota_bytes=0), []),
        ({"quota_bytes": 5}, HeldBucket(quota_bytes=0), ["SetQuota"]),
        ({"tags": {}}, HeldBucket(tags=(("theirs", "1"),)), []),
        ({"access": "private"}, HeldBucket(access=policies.public("b", write=False)), ["SetAccess"]),
    ],
)
def test_what_is_declared_and_what_is_there_give_these_steps(value: Any, held: Any, steps: list[str]):
    assert planned(value, held) == steps


def test_an_empty_bucket_that_is_to_go_is_dropped_and_a_full_one_frozen_first():
    full = HeldBucket(contents=Contents(("key", "null")))
    assert [step.name for step in plan_bucket(B, None, None, 0.0).steps] == []
    assert [step.name for step in plan_bucket(B, None, HeldBucket(contents=Contents()), 0.0).steps] == ["DropBucket"]
    assert [step.name for step in plan_bucket(B, None, full, 0.0).steps] == ["FreezeBucket", "EmptyBucket"]
    frozen = replace(full, quota_bytes=model.FROZEN_BYTES, access=policies.frozen("b"))
    assert [step.name for step in plan_bucket(B, None, frozen, 0.0).steps] == ["EmptyBucket"]


def test_rules_of_others_keep_their_place_and_their_text():
    theirs = "<Rule><ID>theirs</ID><Status>Enabled</Status><Filter/><Strange>1</Strange></Rule>"
    document = lifecycle.document([lifecycle.text(Rule("ours", expire_days=1)), theirs])
    held = HeldBucket(rules=lifecycle.parsed(document), former={"rules": frozenset({"ours"})})
    wanted = {"lifecycle": [{"id": "new", "expire_days": 2}]}
    plan = plan_bucket(B, model.declared("b", Bucket.model_validate({"target": "m", **wanted})), held, 0.0)
    (step,) = plan.steps
    assert isinstance(step, SetLifecycle)
    assert step.removed == ("ours",)
    assert "<Strange>1</Strange>" in step.texts[0]
    assert [d.path for d in plan.differences] == ["/lifecycle/new", "/lifecycle/ours"]


@pytest.mark.parametrize(
    "value",
    [
        {"bucket": "No"},
        {"bucket": "127.0.0.1"},
        {"bucket": "a..b"},
        {"cors": []},
        {"versioning": "suspended", "excluded_prefixes": ["a"]},
        {"object_lock": True, "versioning": "suspended"},
        {"retention": {"mode": "governance", "days": 1}},
        {"object_lock": True, "retention": {"mode": "governance", "days": 1, "years": 1}},
        {"lifecycle": [{"id": "a"}]},
        {"lifecycle": [{"id": "a", "expire_days": 0}]},
        {"lifecycle": [{"id": "a", "expire_days": 1}, {"id": "a", "expire_days": 2}]},
        {"lifecycle": [{"id": "a", "abort_multipart_days": 1}]},
        {"lifecycle": [{"id": "a", "expire_days": 1, "expired_delete_marker": True}]},
        {"tags": {"ä": "1"}},
        {"notifications": [{"id": "n", "arn": "x", "events": ["s3:ObjectCreated:*"]}]},
    ],
    ids=str,
)
def test_what_the_server_would_refuse_or_drop_is_refused_at_once(value: Any):
    with pytest.raises(ValidationError):
        Bucket.model_validate({"target": "main", **value})


@pytest.mark.parametrize("endpoint", ["minio:9000", "http://a:b@h", "http://h/path", "http://h:99999", "ftp://h"])
def test_an_endpoint_is_scheme_host_and_port(endpoint: str):
    secret = {"from_env": "X"}
    with pytest.raises(ValidationError):
        Target.model_validate({"endpoint": endpoint, "access_key": secret, "secret_key": secret})


NOW = 100 * DAY_S + 3_600


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (Rule("r", expire_days=7), Expiring(1, 5)),
        (Rule("r", expire_days=60), Expiring(0, 0)),
        (Rule("r", noncurrent_days=7), Expiring(1, 3)),
        (Rule("r", noncurrent_keep=1), Expiring(1, 3)),
        (Rule("r", noncurrent_days=7, noncurrent_keep=1), Expiring(1, 3)),
        (Rule("r", expire_days=7, larger_than_bytes=5), Expiring(0, 0)),
        (Rule("r", expire_days=7, prefix="x"), Expiring(0, 0)),
    ],
    ids=str,
)
def test_a_rule_removes_what_is_old_enough_today(rule: Rule, found: Expiring):
    versions = [
        Version("a", 1, NOW - DAY_S),
        Version("a", 2, NOW - 20 * DAY_S, latest=False),
        Version("a", 3, NOW - 30 * DAY_S, latest=False),
        Version("b", 0, NOW - 20 * DAY_S, delete_marker=True),
        Version("c", 5, NOW - 20 * DAY_S),
    ]
    assert expiring(rule, versions, NOW, complete=True) == found


def test_policies_that_permit_the_same_are_the_same():
    one = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": ["b", "a", "a"], "Resource": "x", "Sid": "1"}],
    }
    two = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": ["a", "b"], "Resource": ["x"]}}
    assert policies.canonical(one) == policies.canonical(two)
    assert policies.canonical(one) != policies.canonical({**two, "Statement": {**two["Statement"], "Effect": "Deny"}})
    assert policies.parsed(policies.canonical(one).text()) == policies.canonical(one)
    assert policies.opens(policies.public("b", write=False))
    assert not policies.opens(policies.frozen("b"))


def line(funcname: str, path: str = "/b", query: str = "", agent: str = "mc", status: int = 200) -> bytes:
    request = {"path": path, "rawquery": query, "headers": {"User-Agent": [agent]}}
    content = {"funcname": funcname, "http": {"request": request, "response": {"statuscode": status}}}
    return b" " + json.dumps(content, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (line("s3.PutBucketVersioning"), Hint(B, "PutBucketVersioning by somebody else")),
        (line("s3.DeleteBucketPolicy"), Hint(B, "DeleteBucketPolicy by somebody else")),
        (line("admin.PutBucketQuotaConfig", "/minio", "bucket=b"), Hint(B, "PutBucketQuotaConfig by somebody else")),
        (line("admin.AddUser", "/minio"), Hint(None, "AddUser by somebody else")),
        (line("admin.SetUserStatus", "/minio"), Hint(None, "SetUserStatus by somebody else")),
        (line("s3.PutBucketVersioning", agent="coreplane/1"), None),
        (line("s3.PutBucketVersioning", status=403), None),
        (line("s3.PutObject"), None),
        (line("s3.GetBucketVersioning"), None),
        (line("admin.ExportIAM"), None),
        (line("admin.ServerInfo"), None),
        (b" ", None),
    ],
)
def test_the_trace_hints_at_changes_by_others_and_at_nothing_else(text: bytes, hint: Hint | None):
    assert trace.hint_of(text, "coreplane/1") == hint


def test_a_flood_is_many_calls_for_several_seconds_in_a_row():
    flood = trace._Flood()
    assert not any(flood.rises(trace.MOST_PER_S + 1, 1.0 + second) for second in range(trace.FLOOD_S))
    assert flood.rises(1, 1.0 + trace.FLOOD_S)
    calm = trace._Flood()
    assert not any(calm.rises(trace.MOST_PER_S // 2, 1.0 + half / 4) for half in range(100) if half % 4 == 0)


@pytest.mark.parametrize(
    ("subsystem", "written", "now", "waits"),
    [
        ("region", {"name": "x", "comment": "y"}, 200.0, True),
        ("region", {"name": "x"}, 100.0 + parameters.AGAIN_S, False),
        ("region", {"name": "other"}, 200.0, False),
        ("region", {}, 200.0, False),
        ("api", {"name": "x"}, 200.0, False),
    ],
)
def test_what_counts_from_the_next_start_on_is_set_once_and_waited_for(
    subsystem: str, written: dict[str, str], now: float, waits: bool
):
    held = HeldConfig({"name": "before"}, written=written, written_at=100.0)
    plan = parameters.plan_config(ExternalId(parameters.SERVER_CONFIG, subsystem), {"name": "x"}, held, now)
    assert (plan.wait_reason is not None, not plan.steps) == (waits, waits)
    assert plan.differences


def test_parameters_are_read_from_the_servers_line_and_overridden_ones_are_known():
    text = '# MINIO_API_REQUESTS_MAX=7\napi requests_max=0 cors_allow_origin="a b" odirect=on \n'
    assert parsed(text, "api") == HeldConfig(
        {"requests_max": "0", "cors_allow_origin": "a b", "odirect": "on"}, {"requests_max": "7"}
    )
    text = (
        "notify_webhook enable=off queue_limit=0\n# MINIO_NOTIFY_WEBHOOK_QUEUE_LIMIT_ears=77\nnotify_webhook:ears endpoint=x\n"
        "# MINIO_NOTIFY_WEBHOOK_ENABLE_NOSE=on\nnotify_webhook:NOSE\n"
    )
    whole, ears = parsed(text, "notify_webhook"), parsed(text, "notify_webhook:ears")
    assert whole.values == {"enable": "off", "queue_limit": "0"}
    assert target_of(whole, ears) == HeldConfig(
        {"enable": "on", "queue_limit": "0", "endpoint": "x"}, {"queue_limit": "77"}
    )
    assert line_of("api", {"b": "2", "a": "1 2"}) == 'api a="1 2" b="2"'

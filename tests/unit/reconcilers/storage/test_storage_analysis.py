"""What the analysis of an object store says about evidence."""

from __future__ import annotations

from typing import Any

from reconcilers.contract import Evidence
from reconcilers.storage import samples
from reconcilers.storage.analysis import DAY_S, analyse
from reconcilers.storage.model import HeldBucket
from reconcilers.storage.policies import public
from schemas.names import timestamp

NOW = 2_000_000_000.0


def metric(name: str, value: float, ago_s: float = 0.0, bucket: str | None = None) -> dict[str, Any]:
    tags = {"target": "main"} | ({"bucket": bucket} if bucket else {})
    return {"metric_type": name, "timestamp": timestamp(NOW - ago_s), "value": value, "tags": tags}


def evidence(*metrics: dict[str, Any], settings: Any = (), events: Any = ()) -> Evidence:
    rows = sorted(metrics, key=lambda one: one["timestamp"])
    return Evidence(NOW - DAY_S, NOW, rows, events, settings)


def test_growth_is_by_the_day_and_says_when_it_is_full():
    found = analyse(
        evidence(
            metric("stored_bytes", 1_000, DAY_S / 2),
            metric("sent_bytes_total", 7, DAY_S / 2),
            metric("sent_bytes_total", 9),
            metric("stored_bytes", 1_500),
            metric("free_bytes", 10_000),
            metric("capacity_bytes", 20_000),
        )
    )
    main = found["targets"]["main"]
    assert (main["growth_bytes_per_day"], main["full_in_days"]) == (1_000.0, 10.0)
    assert (main["received_bytes"], main["sent_bytes"]) == (0, 2)
    assert found["findings"] == ["main: full in 10 days if it goes on growing as it does"]


def test_what_the_rules_removed_counts_from_the_first_one_and_over_a_restart_of_the_server():
    told = 'minio_node_ilm_action_count_delete%s_action{server="a"} %d'
    line = "\n".join((told % ("", 5), told % ("_version", 2), 'minio_node_ilm_action_count_none_action{server="a"} 9'))
    before, after = ({one.metric_type: one.value for one in samples.of_server(text)} for text in ("", line))
    assert (before["lifecycle_removed_total"], after["lifecycle_removed_total"], after["lifecycle_moved_total"]) == (
        0,
        7,
        0,
    )
    rows = [metric("lifecycle_removed_total", value, ago) for value, ago in ((0, 90), (7, 60), (3, 30))]
    main = analyse(evidence(*rows))["targets"]["main"]
    assert (main["lifecycle_removed"], main["lifecycle_moved"]) == (10, 0)


def test_the_fastest_growing_and_the_largest_buckets_come_first():
    rows = []
    for name, before, after in (("slow", 900, 1_000), ("fast", 100, 600), ("shrinks", 500, 100)):
        rows += [
            metric("bucket_size_bytes", before, DAY_S, name),
            metric("bucket_size_bytes", after, 0, name),
        ]
    main = analyse(evidence(*rows))["targets"]["main"]
    assert [one["bucket"] for one in main["largest"]] == ["slow", "fast", "shrinks"]
    assert main["fastest_growing"] == [
        {"bucket": "fast", "bytes_per_day": 500.0},
        {"bucket": "slow", "bytes_per_day": 100.0},
    ]


def test_public_buckets_full_quotas_noncurrent_versions_and_errors_are_found():
    found = analyse(
        evidence(
            metric("bucket_public", 1, 0, "web"),
            metric("bucket_public", 1, DAY_S, "was-public"),
            metric("bucket_size_bytes", 95, 0, "small"),
            metric("bucket_quota_bytes", 100, 0, "small"),
            metric("bucket_versions", 7, 0, "small"),
            metric("bucket_objects", 2, 0, "small"),
            metric("request_5xx_errors_total", 5, 60),
            metric("request_5xx_errors_total", 2),
            metric("drives_offline", 1),
        )
    )
    main = found["targets"]["main"]
    assert main["public"] == ["web"]
    assert main["noncurrent"] == [{"bucket": "small", "noncurrent_versions": 5}]
    assert found["findings"] == [
        "main: 1 drives are offline",
        "main: open to everybody: web",
        "main: small uses 95% of its quota",
        "main: 2 requests failed by the server's fault",
    ]


def test_keys_that_expire_soon_are_told_and_others_not():
    def key(name: str, days: float) -> dict[str, Any]:
        return {
            "setting_type": "storage.access_key",
            "name": name,
            "value": {"expires_at": timestamp(NOW + days * DAY_S)},
        }

    found = analyse(evidence(settings=[key("soon", 3), key("late", 90), key("gone", -1)]))
    assert [one["setting"] for one in found["keys"]] == ["storage.access_key/gone", "storage.access_key/soon"]
    assert found["findings"] == [
        "storage.access_key/gone has expired 1 days ago",
        "storage.access_key/soon expires in 3 days",
    ]


def test_what_rules_removed_when_they_were_set_is_told():
    event = {
        "event_type": "ActionStarted",
        "timestamp": timestamp(NOW),
        "setting": "default/storage.bucket/invoices",
        "details": {"step": "SetLifecycle", "expires_today": {"tmp": {"objects": 3}}},
    }
    (row,) = analyse(evidence(events=[event, {**event, "details": {"step": "SetTags"}}]))["lifecycle"]
    assert row["expires_today"] == {"tmp": {"objects": 3}}


def test_samples_are_summed_over_what_the_server_tells_apart():
    text = (
        '\n# HELP x\nminio_s3_requests_total{api="get",server="a"} 3\nminio_s3_requests_total{api="put",server="a"} 4\n'
    )
    told = {m.metric_type: m.value for m in samples.of_server(text + "minio_cluster_bucket_total 2\nother 1\n")}
    assert {name: value for name, value in told.items() if value} == {"requests_total": 7.0, "buckets": 2.0}
    assert told["request_5xx_errors_total"] == 0, "the server says nothing of it before the first"


def test_samples_of_buckets_say_which_are_public():
    held = [("web", HeldBucket(access=public("web", write=False))), ("own", HeldBucket(quota_bytes=5))]
    found = {(m.metric_type, m.tags.get("bucket")): m.value for m in samples.of_buckets(held)}
    assert found == {("public_buckets", None): 1, ("bucket_public", "web"): 1, ("bucket_quota_bytes", "own"): 5}


def test_latency_is_summed_over_apis_and_the_slow_share_is_found():
    line = 'minio_s3_requests_ttfb_seconds_distribution{{api="{}",le="{}",server="a"}} {}\n'
    text = "".join(line.format(api, le, n) for api in ("get", "put") for le, n in (("1.000", 4), ("+Inf", 5)))
    told = [one for one in samples.of_server(text) if one.tags]
    assert {m.tags["within_s"]: m.value for m in told} == {"1.000": 8.0, "+Inf": 10.0}
    rows = []
    for one in told:
        rows += [metric(one.metric_type, value, ago, None) for value, ago in ((0.0, 60.0), (one.value, 0.0))]
        for row in rows[-2:]:
            row["tags"] |= one.tags
    found = analyse(evidence(*rows))
    assert found["targets"]["main"]["slower_than_1s"] == 0.2
    assert found["findings"] == ["main: 20% of the requests waited more than a second"]
    assert analyse(evidence(metric("objects", 1)))["targets"]["main"]["slower_than_1s"] is None


def test_what_could_not_be_copied_is_found():
    remote = {"replicationCount": 3, "completedReplicationSize": 30, "failed": {"totals": {"count": 2, "bytes": 9}}}
    queued = {"curr": {"count": 4, "bytes": 40}}
    told = samples.of_replication("photos", {"currStats": {"Stats": {"arn:a": remote, "arn:b": {}}, "queued": queued}})
    assert {m.metric_type: m.value for m in told} == {
        "bucket_replicated_total": 3.0,
        "bucket_replicated_bytes_total": 30.0,
        "bucket_replication_failures_total": 2.0,
        "bucket_replication_failed_bytes_total": 9.0,
        "bucket_replication_queued": 4.0,
        "bucket_replication_queued_bytes": 40.0,
    }
    assert samples.of_replication("photos", {"currStats": None})[0].value == 0.0
    rows = [metric(one.metric_type, 0, 60, "photos") for one in told]
    found = analyse(evidence(*rows, *(metric(one.metric_type, one.value, 0, "photos") for one in told)))
    assert found["targets"]["main"]["replication"] == [
        {"bucket": "photos", "replicated": 3.0, "failures": 2.0, "queued": 4.0}
    ]
    assert found["findings"] == ["main: 2 objects of photos couldn't be copied"]


def test_what_walks_found_is_told_the_most_first_and_unfinished_uploads_are_a_finding():
    rows = [
        metric("bucket_cold_bytes", 5, DAY_S / 2, "a"),
        metric("bucket_cold_bytes", 10, 0, "a"),
        metric("bucket_cold_objects", 2, 0, "a"),
        metric("bucket_cold_bytes", 20, 0, "b"),
        metric("bucket_cold_bytes", 0, 0, "c"),
        metric("bucket_expiring_bytes", 7, 0, "a"),
        metric("bucket_expiring_versions", 1, 0, "a"),
        metric("bucket_incomplete_uploads", 3, 0, "c"),
        metric("bucket_replicated_total", 1, 0, "c"),
        metric("bucket_replication_queued", 4, 0, "c"),
    ]
    found = analyse(evidence(*rows))
    main = found["targets"]["main"]
    assert main["cold"] == [
        {"bucket": "b", "cold_bytes": 20, "cold_objects": 0},
        {"bucket": "a", "cold_bytes": 10, "cold_objects": 2},
    ]
    assert main["will_expire"] == [{"bucket": "a", "expiring_bytes": 7, "expiring_versions": 1}]
    assert main["replication"] == [{"bucket": "c", "replicated": 0, "failures": 0, "queued": 4}]
    assert found["findings"] == ["main: 3 uploads to c were never finished"]

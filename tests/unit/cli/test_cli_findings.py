"""What doctor makes of the daemon's answers."""

from dataclasses import replace
from typing import Any

from controlplane.cli import findings
from controlplane.cli.findings import BAD, GOOD
from controlplane.log.kafka_topics import Fault
from schemas.names import parse_timestamp


def told(found: Any) -> list[tuple[str, str]]:
    return [(finding.check, finding.state) for finding in found]


def test_a_ready_daemon_has_a_good_log_and_projection() -> None:
    assert told(findings.of_health({"ready": True, "reasons": []})) == [("log", GOOD), ("projection", GOOD)]


def test_a_trouble_is_told_with_advice() -> None:
    trouble = {"part": "log", "reason": "LogUnavailable", "message": "disk full"}
    found = list(findings.of_health({"ready": False, "reasons": [trouble]}))
    assert told(found) == [("projection", GOOD), ("log", BAD)]
    assert found[1].message == "LogUnavailable: disk full"
    assert "disk space" in found[1].advice


def test_not_ready_without_a_reason_is_bad_all_the_same() -> None:
    assert told(findings.of_health({"ready": False}))[-1] == ("ready", BAD)


def test_a_target_that_is_down_is_told_with_reason_and_advice() -> None:
    up = {"tenant": "default", "service": "cache", "target": "main", "up": True}
    down = {**up, "tenant": "other", "up": False, "reason": "Unreachable", "message": "connection refused"}
    found = list(findings.of_targets({"targets": [up, down]}))
    assert told(found) == [("target cache/main", GOOD), ("target other/cache/main", BAD)]
    assert found[1].message == "Unreachable: connection refused"
    assert found[1].advice


def test_what_an_analysis_advises_is_told_with_its_evidence() -> None:
    one = {
        "target": "main",
        "about": "shop wants 1 replicas on 1 nodes",
        "advice": "add nodes",
        "evidence": {"data_nodes": 1},
    }
    found = list(findings.of_advice({"search": {"advice": [one]}, "cache": {"findings": []}}))
    assert told(found) == [("advice search/main", GOOD)]
    assert (found[0].message, found[0].advice) == ("shop wants 1 replicas on 1 nodes (data_nodes 1)", "add nodes")


def test_what_is_advised_now_is_told_instead_of_the_same_from_metrics() -> None:
    sampled = {"target": "main", "index": "shop", "about": "query q is slow", "advice": "a", "evidence": {"p95_s": 1}}
    now = {**sampled, "evidence": {"plan": [f"{n} ms" for n in range(9)]}}
    other = {**sampled, "about": "the heap is nearly full"}
    found = list(findings.of_advice({"search": {"advice": [sampled, other]}}, {("search", "main"): [now]}))
    plan = "0 ms, 1 ms, 2 ms, 3 ms, 4 ms, …"
    assert [one.message for one in found] == [
        f"shop: query q is slow (plan {plan})",
        "shop: the heap is nearly full (p95_s 1)",
    ]


def test_stalled_settings_are_named() -> None:
    stalled = {"setting_type": "cache.redis_user", "name": "app", "status": {}}
    assert told(findings.of_stalled([stalled])) == [("cache.redis_user/app", BAD)]
    assert told(findings.of_stalled([])) == [("settings", GOOD)]


def test_topics_that_the_daemon_would_refuse_are_bad_and_come_with_their_command() -> None:
    url = "kafka://broker:9092"
    refused = Fault("coreplane.settings", "forgets after 1000 ms, not never", "kafka-configs.sh --alter")
    (finding,) = findings.of_topics(url, [refused])
    assert (finding.state, finding.advice) == (findings.BAD, "kafka-configs.sh --alter")
    (finding,) = findings.of_topics(url, [replace(refused, refused=False)])
    assert finding.state == findings.GOOD
    (finding,) = findings.of_topics(url, [])
    assert finding.state == findings.GOOD
    assert list(findings.of_topics("sqlite:log.db", [])) == []


def test_what_doctor_can_mend_it_says_and_what_it_mended() -> None:
    fault = Fault(
        "coreplane.settings", "forgets after 1000 ms, not never", "kafka-configs.sh", config={"retention.ms": "-1"}
    )
    (finding,) = findings.of_topics("kafka://broker:9092", [fault])
    assert finding.advice == "`coreplane doctor --mend`, or kafka-configs.sh"
    (finding,) = findings.of_mended([fault])
    assert (finding.state, finding.advice) == (findings.GOOD, "")
    assert finding.message == "mended: it forgets after 1000 ms, not never; now retention.ms=-1"


def test_a_daemon_that_everybody_reaches_without_a_token_is_warned_of() -> None:
    for url, required, warned in (
        ("http://127.0.0.1:8470", False, []),
        ("http://[::1]:8470", True, []),
        ("https://plane.example", True, []),
        ("https://plane.example", False, ["access"]),
        ("http://plane.example", False, ["access", "tls"]),
        ("http://10.0.0.7:8470", True, ["tls"]),
    ):
        found = findings.of_access(url, {"access": {"required": required}})
        assert [one.check for one in found if one.state == findings.WARNED] == warned, url


def test_tokens_that_end_soon_are_warned_of() -> None:
    ends = {
        "over": "2026-01-01T00:00:00Z",
        "soon": "2026-01-10T00:00:00Z",
        "late": "2027-01-01T00:00:00Z",
        "never": None,
    }
    tokens = [{"name": name, "value": {"expires_at": at}} for name, at in ends.items()]
    found = list(findings.of_tokens(tokens, parse_timestamp("2026-01-07T00:00:00Z")))
    assert [(one.check, one.message) for one in found] == [
        ("token over", "has expired"),
        ("token soon", "expires in 3d"),
    ]

"""What doctor makes of the daemon's answers."""

from typing import Any

from controlplane.cli import findings
from controlplane.cli.findings import BAD, GOOD


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


def test_stalled_settings_are_named() -> None:
    stalled = {"setting_type": "cache.redis_user", "name": "app", "status": {}}
    assert told(findings.of_stalled([stalled])) == [("cache.redis_user/app", BAD)]
    assert told(findings.of_stalled([])) == [("settings", GOOD)]

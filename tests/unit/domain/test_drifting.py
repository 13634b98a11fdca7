"""States of drift, and paths that aren't owned."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.domain.drifting import counted, drifts
from controlplane.domain.fold import Entry
from controlplane.domain.muting import Mute, mute_of, mutes, next_end
from controlplane.domain.status import KeyStatus, conditioned
from controlplane.domain.validation import check_one, owned_value, stored_body
from schemas.cache import RedisConfig
from schemas.names import parse_timestamp

KEY = "default/cache.redis_config/shop"
NOON = parse_timestamp("2026-01-31T12:00:00Z")


def entry(**policy: Any) -> Entry:
    body = {"value": {"target": "t", "parameters": {"a": "1"}}, "labels": {}, "depends_on": [], "policy": policy}
    return Entry(KEY, body, 1, 1, 1, "", "", False, None, "ann", "", "r1")


def detected(episode: str, minute: int, path: str = "/a", observed: Any = 2) -> dict[str, Any]:
    drift = [{"path": path, "desired": 1, "observed": observed}]
    return event("DriftDetected", episode, minute, drift=drift)


def resolved(episode: str, minute: int) -> dict[str, Any]:
    return event("DriftResolved", episode, minute)


def event(event_type: str, episode: str, minute: int, **details: Any) -> dict[str, Any]:
    at = f"2026-01-31T11:{minute:02}:00Z"
    return {"setting": KEY, "event_type": event_type, "correlation_id": episode, "timestamp": at, "details": details}


def status(drift: Any = (), muted: Any = ()) -> KeyStatus:
    known = KeyStatus(KEY, drift=tuple(drift), muted=tuple(muted))
    return conditioned(known, NOON, Drifted=("True" if drift else "False", "x", ""))


def only(events: Any = (), known: KeyStatus | None = None, **policy: Any) -> dict[str, Any]:
    (row,) = drifts(events, {KEY: entry(**policy)}, {KEY: known} if known else {}, NOON)
    return row


def test_what_differs_now_is_open_since_its_condition_is():
    row = only([detected("e1", 1)], status([("/a", 1, 5)]))
    assert (row["state"], row["observed"], row["episodes"], row["until"]) == ("open", 5, 1, None)
    assert row["since"] == "2026-01-31T12:00:00.000000Z"
    assert only((), status([("/a", 1, 5)]))["episodes"] == 1


def test_what_was_put_right_is_resolved_and_what_came_back_is_recurring():
    row = only([detected("e1", 1), resolved("e1", 2)])
    assert (row["state"], row["since"], row["until"]) == ("resolved", "2026-01-31T11:01:00Z", "2026-01-31T11:02:00Z")
    row = only([detected("e1", 1), resolved("e1", 2), detected("e2", 3, observed=9), resolved("e2", 4)])
    assert (row["state"], row["episodes"], row["first_at"]) == ("recurring", 2, "2026-01-31T11:01:00Z")
    assert (row["observed"], row["until"], row["correlation_id"]) == (9, "2026-01-31T11:04:00Z", "e2")


def test_an_episode_that_changes_stays_one():
    row = only([detected("e1", 1), detected("e1", 2, observed=3), resolved("e1", 3)])
    assert (row["state"], row["episodes"], row["observed"]) == ("resolved", 1, 3)


def test_the_end_of_one_episode_isnt_that_of_another_path():
    rows = drifts([detected("e1", 1), detected("e2", 2, "/b"), resolved("e2", 3)], {KEY: entry()}, {}, NOON)
    assert [(row["path"], row["until"]) for row in rows] == [("/a", None), ("/b", "2026-01-31T11:03:00Z")]


def test_what_isnt_owned_is_muted_with_its_reason_and_still_counted():
    ignore = [{"path": "/parameters/a", "reason": "tuned by hand", "until": "2026-02-01T00:00:00Z"}]
    row = only((), status(muted=[("/parameters/a", "1", "9")]), ignore=ignore, drift="report")
    assert (row["state"], row["policy"]) == ("muted", "report")
    assert row["muted"] == {"reason": "tuned by hand", "until": "2026-02-01T00:00:00Z"}
    assert counted([row]) == {"open": 0, "muted": 1, "recurring": 0, "resolved": 0}


def test_settings_that_arent_asked_about_have_no_rows():
    assert drifts([detected("e1", 1)], {}, {}, NOON) == []


# --- muting ------------------------------------------------------------------------------------------------------------


def test_both_ways_of_writing_what_is_ignored_mean_the_same():
    body = {"policy": {"ignore": ["/a", {"path": "/b", "reason": "why"}]}}
    assert mutes(body, NOON) == (Mute("/a"), Mute("/b", "why"))
    assert owned_value({"value": {"a": 1, "b": 2, "c": 3}, **body}) == {"c": 3}


def test_from_its_end_on_a_path_is_owned_again():
    body = {"value": {"a": 1}, "policy": {"ignore": [{"path": "/a", "reason": "w", "until": "2026-01-31T12:00:00Z"}]}}
    assert owned_value(body, NOON - 1) == {}
    assert owned_value(body, NOON) == {"a": 1}
    assert owned_value(body) == {}
    assert next_end(mutes(body)) == NOON
    assert next_end(mutes({"policy": {"ignore": ["/a"]}})) is None


def test_a_path_falls_under_what_is_at_below_or_above_it():
    found = (Mute("/a/b"),)
    assert all(mute_of(path, found) for path in ("/a/b", "/a/b/c", "/a", "/a/b@10.0.0.1:6379"))
    assert mute_of("/a/bc", found) is None


KINDS = {"cache.redis_config": RedisConfig}


def declared(ignore: Any) -> Any:
    value = {"target": "t", "parameters": {"hz": "10", "timeout": "0"}}
    return check_one({"type": "cache.redis_config", "name": "n", "value": value, "policy": {"ignore": [ignore]}}, KINDS)


def test_a_reason_and_an_end_are_stored_as_they_were_written():
    ignore = {"path": "/parameters/hz", "reason": "by hand", "until": "2026-01-31T12:00:00Z"}
    declaration, faults = declared(ignore)
    assert faults == []
    assert stored_body(declaration)["policy"] == {"ignore": [ignore]}
    assert stored_body(declared("/parameters/hz")[0])["policy"] == {"ignore": ["/parameters/hz"]}


@pytest.mark.parametrize(
    ("ignore", "path", "words"),
    [
        ({"path": "/parameters/nothing", "reason": "w"}, "/policy/ignore/0/path", "declares nothing"),
        ({"path": "/parameters/hz"}, "/policy/ignore/0/reason", "required"),
        ({"path": "/parameters/hz", "reason": "w", "until": "soon"}, "/policy/ignore/0/until", "RFC 3339"),
        ({"path": "/parameters/hz", "reason": "w", "untill": "x"}, "/policy/ignore/0/untill", "did you mean 'until'"),
    ],
)
def test_what_is_written_wrong_is_told_with_its_place(ignore: Any, path: str, words: str):
    _, faults = declared(ignore)
    told = {fault.path: fault.message for fault in faults}
    assert words in told[path]

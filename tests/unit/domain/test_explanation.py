"""Who set each path and why, and what came of it."""

from __future__ import annotations

from controlplane.domain import history
from controlplane.domain.explanation import Past, World, chain, episode, explained
from controlplane.domain.muting import Mute

KEY = "default/cache.redis_config/shop"


def record(actor, value, *, op="declare", reason=""):
    change = {"op": op, "key": KEY, "expected": None}
    change |= {"body": {"value": value, "labels": {}, "depends_on": [], "policy": {}}} if op == "declare" else {}
    return {"v": 1, "at": f"2026-01-0{len(actor)}T00:00:00Z", "actor": actor, "reason": reason, "changes": [change]}


def past(*records, events=(), mutes=()):
    numbered = [(10 * n, {**one, "request_id": f"request-{10 * n + 1}"}) for n, one in enumerate(records)]
    return Past(list(history.moments(KEY, numbered)), events, mutes)


def event(number, event_type, correlation, status="info", cause=None, **details):
    return {
        "id": f"e{number}",
        "event_type": event_type,
        "timestamp": f"2026-01-01T00:00:0{number}Z",
        "status": status,
        "correlation_id": correlation,
        "causation_id": cause,
        "details": details,
    }


TWO = (
    record("ann", {"target": "t", "parameters": {"a": "1", "b": "1"}, "list": [1]}),
    record("bob", {"target": "t", "parameters": {"a": "1", "b": "2"}, "list": [1]}, reason="more"),
)


def by_path(rows):
    return {row["path"]: row for row in rows}


def test_each_path_names_the_revision_that_gave_it_its_value():
    rows = by_path(explained(past(*TWO), World()))
    assert rows.keys() == {"/parameters/a", "/parameters/b", "/list"}
    assert {path: row["set_by"]["revision"] for path, row in rows.items()} == {
        "/parameters/a": 1,
        "/parameters/b": 11,
        "/list": 1,
    }
    assert rows["/parameters/b"]["set_by"] | {"at": None} == {
        "revision": 11, "generation": 2, "at": None, "actor": "bob", "reason": "more", "request_id": "request-11",
    }  # fmt: skip


def test_a_path_that_went_and_came_back_was_set_by_who_brought_it_back():
    value = {"target": "t", "parameters": {"a": "1"}}
    without = {"target": "t", "parameters": {"b": "1"}}
    rows = by_path(explained(past(record("ann", value), record("bob", without), record("carl", value)), World()))
    assert rows["/parameters/a"]["set_by"]["actor"] == "carl"


def test_what_was_forgotten_and_declared_anew_was_set_anew():
    value = {"target": "t", "list": [1]}
    rows = explained(
        past(
            record("ann", value), record("x", None, op="retire"), record("x", None, op="forget"), record("dora", value)
        ),
        World(),
    )
    assert [row["set_by"]["actor"] for row in rows] == ["dora"]


def test_true_isnt_one():
    rows = explained(past(record("ann", {"x": 1}), record("bob", {"x": True})), World())
    assert [row["set_by"]["actor"] for row in rows] == ["bob"]


def test_observed_is_what_differs_and_else_what_is_desired():
    rows = by_path(explained(past(*TWO), World([("/parameters/b", "2", "7")])))
    assert (rows["/parameters/a"]["observed"], rows["/parameters/b"]["observed"]) == ("1", "7")
    assert rows["/parameters/b"]["drift"] == [{"path": "/parameters/b", "desired": "2", "observed": "7"}]
    assert rows["/parameters/a"]["drift"] == []


def test_a_node_of_several_and_a_path_below_belong_to_the_owned_path():
    rows = by_path(explained(past(*TWO), World([("/list/0@10.0.0.2:6379", 1, 2), ("/list@10.0.0.1:6379", [1], [])])))
    assert [one["path"] for one in rows["/list"]["drift"]] == ["/list/0@10.0.0.2:6379", "/list@10.0.0.1:6379"]


def test_what_differs_and_belongs_to_no_path_has_a_row_of_its_own():
    rows = by_path(explained(past(*TWO), World([("/username", "shop", None)])))
    assert (rows["/username"]["desired"], rows["/username"]["observed"]) == ("shop", None)
    assert rows["/username"]["set_by"]["revision"] == 1


def test_nothing_is_observed_where_nothing_is_known():
    rows = explained(past(*TWO), World(unknown={"reason": "Unreachable", "message": "gone"}))
    assert {(row["known"], row["observed"]) for row in rows} == {(False, None)}


def test_an_ignored_path_says_so_and_shows_what_was_seen_there():
    muted = past(*TWO, mutes=[Mute("/parameters/a", "by hand", "2027-01-01T00:00:00Z")])
    rows = by_path(explained(muted, World(muted=[("/parameters/a", "1", "9")])))
    assert rows["/parameters/a"]["muted"] == {
        "path": "/parameters/a",
        "reason": "by hand",
        "until": "2027-01-01T00:00:00Z",
    }
    assert (rows["/parameters/a"]["observed"], rows["/parameters/b"]["observed"]) == ("9", "2")
    assert rows["/parameters/b"]["muted"] is None


def test_only_what_is_asked_for():
    assert [row["path"] for row in explained(past(*TWO), World(), "/parameters")] == ["/parameters/a", "/parameters/b"]
    assert [row["path"] for row in explained(past(*TWO), World(), "/list/0")] == ["/list"]
    assert explained(past(*TWO), World(), "/other") == []


def test_the_chain_goes_from_the_request_to_the_observation_of_the_newest_path():
    events = [
        event(1, "SettingAccepted", "request-11"),
        event(
            2, "ActionStarted", "request-11", "started", cause="e1", step="SetParameters", summary="SetParameters b=2"
        ),
        event(3, "ActionSucceeded", "request-11", "succeeded", cause="e2"),
        event(4, "Converged", "request-1"),
        event(5, "Converged", "request-11", "succeeded"),
    ]
    told = past(*TWO, events=events)
    found = chain(told, explained(told, World()))
    assert [one["stage"] for one in found] == ["request", "change", "intent", "effect", "observation"]
    assert found[0]["id"] == "request-11"
    assert found[1]["changed"] == ["/value/parameters/b"]
    assert [one["id"] for one in found[2:]] == ["e2", "e3", "e5"]
    first = chain(told, explained(told, World(), "/parameters/a"))
    assert [one["stage"] for one in first] == ["request", "change", "observation"]
    assert first[0]["id"] == "request-1"


def test_the_last_action_on_a_path_is_one_that_names_it_or_names_none():
    events = [
        event(1, "ActionStarted", "c", "started", step="Create", summary="Create", attempt=1),
        event(2, "ActionSucceeded", "c", "succeeded", cause="e1"),
        event(3, "ActionStarted", "c", "started", step="Set", summary="Set b", attempt=2, paths=["/parameters/b"]),
        event(4, "ActionFailed", "c", "failed", cause="e3"),
    ]
    rows = by_path(explained(past(*TWO, events=events), World()))
    assert (rows["/parameters/a"]["last_action"]["step"], rows["/parameters/b"]["last_action"]["step"]) == (
        "Create",
        "Set",
    )
    assert rows["/parameters/b"]["last_action"]["status"] == "failed"
    assert explained(past(*TWO), World())[0]["last_action"] is None


def test_an_episode_of_drift_has_a_beginning_and_an_end():
    events = [
        event(1, "DriftDetected", "old", drift=[]),
        event(2, "DriftResolved", "old"),
        event(3, "DriftDetected", "new", drift=[]),
        event(4, "ActionStarted", "new", "started"),
    ]
    open_one = episode(events)
    assert (open_one["correlation_id"], open_one["until"]) == ("new", None)
    assert [one["stage"] for one in open_one["chain"]] == ["observation", "intent"]
    ended = episode([*events, event(5, "DriftResolved", "new")])
    assert (ended["since"], ended["until"]) == ("2026-01-01T00:00:03Z", "2026-01-01T00:00:05Z")
    assert episode([]) is None

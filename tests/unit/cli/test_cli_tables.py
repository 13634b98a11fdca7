"""Settings, events and statuses as people see them."""

import io
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console, RenderableType

from controlplane.cli import tables

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


def rendered(part: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=400)
    console.print(part)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def setting(**changes: Any) -> dict[str, Any]:
    status = {
        "phase": "Stalled",
        "observed_generation": 2,
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "Missing", "message": "", "since": "2026-01-31T11:00:00Z"},
            {"type": "Stalled", "status": "True", "reason": "SecretNotFound", "message": "from_env: PW", "since": ""},
        ],
        "external": "app",
    }
    whole = {
        "setting_type": "cache.redis_user",
        "name": "app",
        "generation": 2,
        "revision": 17,
        "labels": {"b": "2", "a": "1"},
        "created_at": "2026-01-31T11:55:00Z",
        "status": status,
    }
    return whole | changes


def test_a_setting_is_one_row_with_what_matters_most() -> None:
    assert rendered(tables.settings_table([setting()], NOON)).splitlines() == [
        "TYPE              NAME  PHASE    GEN  AGE  MESSAGE",
        "cache.redis_user  app   Stalled  2    5m   SecretNotFound: from_env: PW",
    ]


def test_wide_adds_revision_external_name_and_labels() -> None:
    line = rendered(tables.settings_table([setting()], NOON, wide=True)).splitlines()[1]
    assert line.split()[5:9] == ["17", "app", "a=1", "b=2"]


def test_a_setting_nobody_looked_at_yet_is_pending() -> None:
    fresh = setting(status={})
    assert (tables.phase_of(fresh), tables.generation_of(fresh), tables.message_of(fresh)) == ("Pending", "2", "")


def test_a_generation_on_its_way_shows_where_the_world_is() -> None:
    assert tables.generation_of(setting(generation=3)) == "2→3"


def test_a_ready_setting_has_no_message() -> None:
    conditions = [{"type": "Ready", "status": "True", "reason": "Converged", "message": ""}]
    assert tables.message_of(setting(status={"phase": "Ready", "conditions": conditions})) == ""


def test_drift_is_told_before_not_being_ready() -> None:
    conditions = [
        {"type": "Drifted", "status": "True", "reason": "OutOfBandChange", "message": "/keys"},
        {"type": "Ready", "status": "False", "reason": "Drifted", "message": "differs on /keys"},
    ]
    assert tables.message_of(setting(status={"conditions": conditions})) == "OutOfBandChange: /keys"
    drift = [{"path": "/keys", "desired": ["~a:*"], "observed": ["~a:*", "~b:*"]}]
    told = tables.message_of(setting(status={"conditions": conditions, "drift": drift}))
    assert told == "OutOfBandChange: /keys has ~b:*"


def test_a_setting_as_it_was_has_no_phase() -> None:
    line = rendered(tables.past_table([setting(updated_at="2026-01-31T11:55:00.123Z")])).splitlines()[1]
    assert line == "cache.redis_user  app   2    17        2026-01-31 11:55:00  a=1 b=2"


def test_a_first_declaration_needs_no_list_of_what_it_changed() -> None:
    first = {"revision": 1, "at": "2026-01-31T11:00:00Z", "op": "declare", "changed": ["/value/a", "/value/b"]}
    gone = first | {"revision": 3, "op": "forget"}
    changed = first | {"revision": 7, "changed": [f"/value/{name}" for name in "abcde"]}
    rows = rendered(tables.history_table([changed, first | {"revision": 5}, gone, first])).splitlines()[1:]
    assert rows[0].endswith("declare  /value/a /value/b /value/c and 2 more")
    assert [row.rpartition("  ")[2] for row in rows[1:]] == ["new", "forget", "new"]


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("2026-01-31T11:59:15Z", "45s"),
        ("2026-01-31T11:48:00Z", "12m"),
        ("2026-01-31T09:00:00Z", "3h"),
        ("2026-01-22T12:00:00Z", "9d"),
        ("2026-01-31T12:00:05Z", "0s"),
        (None, "-"),
    ],
)
def test_an_age_has_the_unit_that_fits(since: str | None, expected: str) -> None:
    assert tables.age(since, NOON) == expected


def test_results_are_counted_in_a_steady_order() -> None:
    results = [{"setting": f"t/a.b/{i}", "outcome": o} for i, o in enumerate(["unchanged", "created", "unchanged"])]
    assert tables.results_line(results) == "1 created, 2 unchanged"
    assert tables.results_line([]) == "nothing to do"
    assert rendered(tables.results_table(results)).splitlines()[1].split() == ["a.b/0", "unchanged"]


def test_what_looks_like_markup_is_printed_as_it_is() -> None:
    hostile = setting(name="[bold]x[/]", status={"phase": "[red]"})
    assert "[bold]x[/]" in rendered(tables.settings_table([hostile], NOON))

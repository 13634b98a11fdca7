"""Events as people see them: of each type what matters."""

import io
from typing import Any

import pytest
from rich.console import Console

from controlplane.cli import event_lines
from controlplane.cli.event_lines import EventLine, gist
from schemas.event import EventType

STARTED = {
    "step": "SetUser",
    "summary": "SetUser app",
    "attempt": 1,
    "plan": "4812a3c8575bbc6a",
    "external": "app",
    "rules": ["+@read"],
}


def event(kind: str = "ActionSucceeded", /, **changes: Any) -> dict[str, Any]:
    whole = {
        "id": "1",
        "event_type": kind,
        "timestamp": "2026-01-31T12:00:00.123456Z",
        "service_name": "cache",
        "details": {"step": "CreateUser", "attempt": 1, "empty": None},
        "status": "succeeded",
        "tenant": "default",
        "setting": "default/cache.redis_user/app",
    }
    return whole | changes


def printed(one: dict[str, Any], width: int, *, about: bool = True) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(EventLine(one, about), crop=False)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_an_event_is_one_line_with_date_and_milliseconds() -> None:
    line = "2026-01-31 12:00:00.123  ActionSucceeded     cache.redis_user/app          CreateUser"
    assert event_lines.event_line(event()).plain == line


def test_where_the_setting_is_known_it_isnt_repeated() -> None:
    assert printed(event(), 80, about=False) == ["2026-01-31 12:00:00.123  ActionSucceeded     CreateUser"]


def test_a_narrow_terminal_has_the_gist_below_broken_between_words() -> None:
    told = printed(event("Stalled", details={"reason": "Conflict", "message": "word " * 30}), 80)
    assert told[0] == "2026-01-31 12:00:00.123  Stalled             cache.redis_user/app"
    assert told[1].startswith("    Conflict: word word")
    assert max(map(len, told)) <= 80


def test_a_wide_terminal_has_the_gist_wrapped_beside() -> None:
    told = printed(event("Stalled", details={"reason": "Conflict", "message": "word " * 30}), 140)
    assert told[0].endswith("word")
    assert told[1].startswith(" " * 60)


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (
            event(
                "SettingAccepted",
                details={"outcome": "updated", "reason": "sale", "at": "…"},
                generation=3,
                actor="ann",
            ),
            "updated (generation 3) by ann: sale",
        ),
        (
            event(
                "SettingRejected", details={"reason": "Conflict", "expected": 3, "revision": 5, "op": "x"}, actor="ann"
            ),
            "Conflict: expected revision 3, is 5 by ann",
        ),
        (event("SettingRetired", details={"outcome": "retired"}, actor="ann"), "by ann"),
        (event("ActionStarted", details=STARTED), "SetUser app"),
        (event("ActionStarted", details=STARTED | {"attempt": 2}), "SetUser app (try 2)"),
        (
            event(details=STARTED | {"sessions_ended": 2, "held": {"a": "b"}, "rules": None}),
            "SetUser · sessions_ended=2",
        ),
        (
            event(
                "ActionFailed", details={"step": "SetUser", "reason": "NoPermission", "message": "no acl", "attempt": 4}
            ),
            "SetUser (try 4) · NoPermission: no acl",
        ),
        (
            event("DriftDetected", details={"drift": [{"path": "/keys", "desired": ["~a"], "observed": ["~a", "~b"]}]}),
            "/keys has ~b",
        ),
        (event("DriftResolved", details={"paths": ["/keys", "/commands"]}), "/keys /commands"),
        (event("Converged", details={"external": "app"}), ""),
        (event("Converged", details={"external": "app:"}), "app:"),
        (
            event("Stalled", details={"reason": "Conflict", "message": "of default/cache.redis_user/b"}),
            "Conflict: of cache.redis_user/b",
        ),
        (event("TargetDown", details={"target": "redis", "reason": "Unreachable", "message": "no"}), "Unreachable: no"),
        (
            event("OperationStarted", details={"operation": "cache.invalidate", "request": {"all": True}}, actor="ann"),
            "cache.invalidate · all=true by ann",
        ),
        (
            event("OperationSucceeded", details={"operation": "cache.inspect", "request": {}, "result": {"keys": 3}}),
            'cache.inspect · → {"keys": 3}',
        ),
        (event("OfTomorrow", details={"reason": "Because", "n": 1}), "Because · n=1"),
    ],
)
def test_of_each_type_what_matters_is_told(one: dict[str, Any], told: str) -> None:
    assert gist(one) == told


@pytest.mark.parametrize("kind", list(EventType))
def test_every_type_can_be_told_without_details(kind: EventType) -> None:
    assert "\n" not in gist(event(kind, details={}, setting=None))


def test_a_long_gist_is_cut() -> None:
    text = gist(event("Stalled", details={"message": "x" * 1000}))
    assert len(text) == event_lines.GIST_CHARS
    assert text.endswith("…")

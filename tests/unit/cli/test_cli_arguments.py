"""What people type, and the complaint when it can't be meant."""

from datetime import UTC, datetime

import pytest

from controlplane.cli import arguments
from controlplane.cli.failure import Failure

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp()


def test_labels_are_repeated_or_joined_by_commas() -> None:
    assert arguments.labels(["team=shop,tier=1", "note=a=b"]) == {"team": "shop", "tier": "1", "note": "a=b"}


@pytest.mark.parametrize("text", ["team", "=shop", "team=shop,"])
def test_a_text_that_is_no_label_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        arguments.labels([text])


def test_a_setting_is_named_with_a_slash_or_a_blank() -> None:
    assert arguments.reference("cache.redis_user/app", None) == ("cache.redis_user", "app")
    assert arguments.reference("cache.redis_user", "app") == ("cache.redis_user", "app")


@pytest.mark.parametrize(("first", "second"), [("cache.redis_user", None), ("a/b", "c"), ("/b", None), ("a/", None)])
def test_half_a_name_or_one_and_a_half_is_refused(first: str, second: str | None) -> None:
    with pytest.raises(Failure):
        arguments.reference(first, second)


def test_a_service_is_told_from_a_type() -> None:
    assert arguments.type_or_service("cache") == (None, "cache")
    assert arguments.type_or_service("cache.redis_user") == ("cache.redis_user", None)


def test_the_reference_of_a_key_leaves_out_the_tenant() -> None:
    assert arguments.reference_of("default/cache.redis_user/app") == "cache.redis_user/app"
    assert arguments.reference_of("cache.redis_user/app") == "cache.redis_user/app"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("250ms", 0.25), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("7d", 604_800)]
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert arguments.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 minutes"])
def test_a_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Failure):
        arguments.duration_s(text)


def test_a_moment_is_a_time_or_that_long_ago() -> None:
    assert arguments.moment("15m", NOON) == "2026-01-31T11:45:00.000000Z"
    assert arguments.moment("2026-01-31T12:00:00+02:00", NOON) == "2026-01-31T10:00:00.000000Z"
    with pytest.raises(Failure):
        arguments.moment("2026-01-31T12:00:00", NOON)


def test_a_bare_number_is_an_offset_of_the_log() -> None:
    assert arguments.place("8812", NOON) == "8812"
    assert arguments.place("1h", NOON) == "2026-01-31T11:00:00.000000Z"


def test_arguments_of_operations_are_read_as_yaml() -> None:
    texts = ["namespace=sessions", "keys=[a, b]", "all=true", "limit=10", "since=2026-01-31", "text=", "a.b=1", "a.c=x"]
    assert arguments.operation_arguments(texts) == {
        "namespace": "sessions",
        "keys": ["a", "b"],
        "all": True,
        "limit": 10,
        "since": "2026-01-31",
        "text": None,
        "a": {"b": 1, "c": "x"},
    }


@pytest.mark.parametrize("texts", [["namespace"], ["=x"], ["keys=[a"], ["a=1", "a.b=2"]])
def test_an_argument_that_cant_be_read_is_refused(texts: list[str]) -> None:
    with pytest.raises(Failure):
        arguments.operation_arguments(texts)


def test_global_options_may_stand_anywhere() -> None:
    argv = ["get", "cache", "--url", "http://x", "-o", "json", "--tenant=t", "--debug"]
    assert arguments.hoisted(argv) == ["--url", "http://x", "--tenant=t", "--debug", "get", "cache", "-o", "json"]


def test_what_follows_two_dashes_is_left_alone() -> None:
    assert arguments.hoisted(["op", "a.b", "--", "--url", "x"]) == ["op", "a.b", "--", "--url", "x"]


def test_a_global_option_without_its_value_is_left_to_the_parser() -> None:
    assert arguments.hoisted(["get", "--url"]) == ["--url", "get"]

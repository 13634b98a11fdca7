"""Log lines: one form, fixed keys, nothing secret."""

import io
import json
import logging

import pytest
import structlog

from controlplane.telemetry.logs import WITHHELD, configure


@pytest.fixture
def lines():
    """Configures JSON logs into a buffer; gives the parsed lines."""
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level
    stream = io.StringIO()
    configure("json", "info", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def test_a_line_is_one_json_object_with_time_level_and_the_keys_in_order(lines):
    structlog.get_logger().info("step taken", step="SetUser", zebra=1, setting="t/cache.redis_user/a")
    (line,) = lines()
    assert list(line) == ["timestamp", "level", "event", "setting", "step", "zebra"]
    assert line["level"] == "info"


def test_lines_under_the_level_are_not_written(lines):
    structlog.get_logger().debug("detail")
    assert lines() == []


def test_lines_of_libraries_have_the_same_form(lines):
    logging.getLogger("aiohttp.server").warning("odd %s", "thing")
    (line,) = lines()
    assert (line["event"], line["level"]) == ("odd thing", "warning")


def test_what_looks_like_a_secret_is_withheld_at_any_depth(lines):
    structlog.get_logger().info(
        "connecting",
        password="hunter2",
        url="redis://app:hunter2@localhost:6379/0",
        value={"auth_token": "hunter2", "users": [{"secret": {"plain": "hunter2"}}]},
    )
    (line,) = lines()
    assert "hunter2" not in json.dumps(line)
    assert line["password"] == WITHHELD
    assert line["url"] == f"redis://app:{WITHHELD}@localhost:6379/0"


def test_references_to_secrets_stay_readable(lines):
    structlog.get_logger().info("secret not found", password={"from_env": "REDIS_PASSWORD"})
    assert lines()[0]["password"] == {"from_env": "REDIS_PASSWORD"}


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_show_neither_local_variables_nor_passwords_in_urls(lines, form):
    stream = io.StringIO()
    configure(form, "info", stream)

    def connect(local):
        raise ConnectionError(f"refused by redis://app:{local}@h/")

    try:
        connect("hunter" + "2")
    except ConnectionError:
        structlog.get_logger().exception("connect failed")
    assert "ConnectionError" in stream.getvalue()
    assert "hunter2" not in stream.getvalue()


def test_bound_context_reaches_every_line(lines):
    with structlog.contextvars.bound_contextvars(correlation_id="c-1"):
        structlog.get_logger().info("one")
    assert lines()[0]["correlation_id"] == "c-1"

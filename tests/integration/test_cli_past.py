"""explain, get --at, export --at and diff --from, as a person types them, against a real daemon and a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from controlplane.cli import session
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.provision import Program
from tests.integration.cli_shell import Shell, beside_redis
from tests.integration.test_cli_plan_rollback import out, user

pytestmark = pytest.mark.integration

DEADLINE_S = 60.0
USER = "cache.redis_user/app"


@pytest.fixture(scope="module")
def shell(
    tmp_path_factory: pytest.TempPathFactory, programs: dict[str, Program], guardian: Guardian
) -> Iterator[Shell]:
    """One daemon and one Redis; the user `app` is declared, then declared otherwise, and `late` is declared after."""
    directory = tmp_path_factory.mktemp("cli-past")
    with beside_redis(directory, programs["redis"], guardian) as (shell, redis):
        shell("apply", "-f", "-", "--wait", "--reason", "opening", stdin=user("app"))
        shell("apply", "-f", "-", "--wait", "--reason", "more rights", stdin=user("app", "+@write"))
        shell("apply", "-f", "-", "--wait", stdin=user("late"))
        shell.redis = redis
        yield shell


def revisions(shell: Shell) -> tuple[int, int]:
    """Of the user `app`, first and second."""
    second, first = shell.json("history", USER)
    return first["revision"], second["revision"]


def test_an_explanation_leads_from_the_request_to_the_observation(shell: Shell) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while "Converged" not in (said := shell("explain", USER, "--path", "/commands")):
        assert time.monotonic() < deadline, said
    lines = [line.split() for line in said.splitlines()]
    assert any(line[:2] == ["/commands", '["+@write"]'] and line[-2:] == ["more", "rights"] for line in lines)
    stages = [line[1] for line in lines if len(line) > 1 and line[1] in {"request", "change", "intent", "effect"}]
    assert stages == ["request", "change", "intent", "effect"]
    assert "more rights" in said
    assert "/keys" not in said
    assert "as desired" in said
    told = shell.json("explain", USER)
    assert {row["path"]: row["set_by"]["reason"] for row in told["paths"]} == {
        "/commands": "more rights",
        "/keys": "opening",
        "/passwords": "opening",
    }


def test_paths_are_completed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COREPLANE_URL", shell.url)
    context: Any = SimpleNamespace(params={"setting_type": USER, "name": None})
    assert session.complete_path(context, "/c") == ["/commands"]
    assert session.complete_path(context, "/x") == []


def test_all_settings_as_they_were(shell: Shell) -> None:
    first, second = revisions(shell)
    assert "late" not in shell("get", "--at", str(second))
    then = shell.json("get", "cache.redis_user", "--at", str(first))
    assert [(one["name"], one["value"]["commands"]) for one in then] == [("app", ["+@read"])]
    assert shell("get", "--at", "7d") == ""
    assert "isn't kept" in shell("get", "--at", "1h", "--phase", "Ready", code=1)


def test_an_export_of_the_past_is_a_file_that_plan_takes(shell: Shell) -> None:
    first, _ = revisions(shell)
    text = shell("export", "-l", "shop=app", "--at", str(first))
    assert yaml.safe_load(text)["value"]["commands"] == ["+@read"]
    assert "SetUser app" in out(shell, "plan", "-f", "-", stdin=text, code=2)


def test_an_export_applied_again_changes_nothing(shell: Shell) -> None:
    for form in ("yaml", "json"):
        text = shell("export", "-o", form)
        position = shell.json("status")["replica"]["position"]
        assert "no steps" in out(shell, "plan", "-f", "-", stdin=text, code=0)
        assert "unchanged" in shell("apply", "-f", "-", stdin=text)
        assert shell.json("status")["replica"]["position"] == position


def test_differences_between_two_times(shell: Shell) -> None:
    first, second = revisions(shell)
    said = out(shell, "diff", "--from", str(first), "--to", str(second), stdin="", code=2)
    assert f"--- {USER} (revision {first} by " in said
    assert f"+++ {USER} (revision {second} by " in said
    assert ": more rights)" in said
    assert "-  - +@read" in said
    assert "+  - +@write" in said
    assert f"1 updated between revisions {first} and {second}" in said
    assert "1 created, 1 updated" in out(shell, "diff", "--from", str(first), stdin="", code=2)
    assert "no difference" in out(shell, "diff", "--from", str(first), "-l", "shop=nobody", stdin="", code=0)
    assert "give files, or --from" in shell("diff", code=1)


def test_drift_is_listed(shell: Shell) -> None:
    for state in ("resolved", "recurring"):
        shell.redis.execute_command("ACL", "SETUSER", "late", "~more:*")
        deadline = time.monotonic() + DEADLINE_S
        while [(r["path"], r["state"]) for r in shell.json("drift", "--all")["items"]] != [("/keys", state)]:
            assert time.monotonic() < deadline, shell("drift", "--all")
    said = shell("drift")
    assert "cache.redis_user/late  /keys  recurring  2" in said
    assert "has ~more:*" in said
    assert said.rstrip().endswith("1 recurring")
    assert shell.json("drift", "cache.redis_user/app", "--all")["items"] == []
    assert shell.json("drift", "--state", "open", "-l", "shop=late")["items"] == []
    assert "coreplane drift cache --all" in shell("drift", "--help")


def test_the_help_shows_examples(shell: Shell) -> None:
    assert "coreplane explain cache.redis_config shop --path" in shell("explain", "--help")
    assert "coreplane diff --from 2h --to 1h" in shell("diff", "--help")
    assert "coreplane export --at 1h" in shell("export", "--help")
    assert "coreplane get --at 2026" in shell("get", "--help")

"""plan, diff, apply --plan and rollback, as a person types them, against a real daemon and a real Redis."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest

from controlplane.devstack.guardian import Guardian
from controlplane.devstack.provision import Program
from tests.integration.cli_shell import Shell, beside_redis

pytestmark = pytest.mark.integration

USER = """\
type: cache.redis_user
name: {name}
labels: {{shop: {name}}}
value: {{target: main, commands: ["{commands}"], keys: ["app:*"], passwords: []}}
"""


@pytest.fixture(scope="module")
def shell(
    tmp_path_factory: pytest.TempPathFactory, programs: dict[str, Program], guardian: Guardian
) -> Iterator[Shell]:
    """One daemon and one Redis, declared as its target `main`."""
    with beside_redis(tmp_path_factory.mktemp("cli-plan"), programs["redis"], guardian) as (shell, _):
        yield shell


@pytest.fixture
def name(shell: Shell) -> str:
    """A user that nobody else uses, applied and ready."""
    name = f"n{uuid.uuid4().hex[:8]}"
    shell("apply", "-f", "-", "--wait", stdin=user(name))
    return name


def user(name: str, commands: str = "+@read") -> str:
    return USER.format(name=name, commands=commands)


def out(shell: Shell, *arguments: str, stdin: str, code: int) -> str:
    done = shell.run(*arguments, stdin=stdin)
    assert done.returncode == code, f"{arguments} → {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_a_plan_shows_the_steps_and_ends_with_2(shell: Shell) -> None:
    said = out(shell, "plan", "-f", "-", stdin=user("fresh"), code=2)
    assert "cache.redis_user/fresh  created  SetUser fresh" in said
    assert "1 created; 1 step" in said
    assert "coreplane apply --plan " in said
    assert shell.json("get", "cache.redis_user", "-l", "shop=fresh") == []


def test_a_plan_of_what_is_so_already_ends_with_0(shell: Shell, name: str) -> None:
    assert out(shell, "plan", "-f", "-", stdin=user(name), code=0).strip() == "1 unchanged; no steps"
    assert out(shell, "diff", "-f", "-", stdin=user(name), code=0).strip() == "1 unchanged; no steps"


def test_what_was_planned_is_applied_and_a_stale_plan_is_refused_with_a_hint(shell: Shell, name: str) -> None:
    changed = user(name, "+@write")
    plan = json.loads(out(shell, "plan", "-f", "-", "-o", "json", stdin=changed, code=2))["plan_id"]
    assert "1 updated" in shell("apply", "-f", "-", "--wait", "--plan", plan, stdin=changed)
    said = shell("apply", "-f", "-", "--plan", plan, stdin=changed, code=1)
    assert "PlanStale" in said
    assert f"/default/cache.redis_user/{name}  was declared since" in said
    assert "`coreplane plan` shows" in said


def test_a_diff_shows_what_is_declared_otherwise_and_what_is_otherwise_there(shell: Shell, name: str) -> None:
    said = out(shell, "diff", "-f", "-", stdin=user(name, "+@write"), code=2)
    assert f"--- cache.redis_user/{name} (revision " in said
    assert f"+++ cache.redis_user/{name} (standard input document 1, line 1)" in said
    assert "-  - +@read" in said
    assert "+  - +@write" in said
    assert f"cache.redis_user/{name} /commands " in said
    created = out(shell, "diff", "-f", "-", stdin=user("unheard"), code=2)
    assert "--- not declared" in created


def test_a_prune_is_planned_and_told_as_retired(shell: Shell, name: str) -> None:
    other = user(f"{name}-b").replace(f"shop: {name}-b", f"shop: {name}")
    arguments = ("plan", "-f", "-", "--prune", "-l", f"shop={name}", "--allow-prune")
    said = out(shell, *arguments, stdin=other, code=2)
    assert f"cache.redis_user/{name}    retired  DropUser {name}" in said
    assert "--prune needs -l" in shell("plan", "-f", "-", "--prune", stdin=other, code=1)
    gone = out(shell, "diff", *arguments[1:], stdin=other, code=2)
    assert f"+++ cache.redis_user/{name} (retired)" in gone


def test_what_is_unknown_is_said_and_a_plan_that_knows_nothing_ends_with_1(shell: Shell) -> None:
    lost = user("lost").replace("target: main", "target: nowhere")
    said = out(shell, "plan", "-f", "-", stdin=lost, code=2)
    assert "unknown: TargetNotFound: declare cache.target/nowhere" in said
    shell("apply", "-f", "-", stdin=lost)
    assert "1 unchanged; no steps" in out(shell, "plan", "-f", "-", stdin=lost, code=1)


def test_a_fault_of_a_planned_file_is_told_with_its_place(shell: Shell) -> None:
    said = shell("plan", "-f", "-", stdin=user("bad").replace("keys", "key"), code=1)
    assert "standard input document 1, line 1 (cache.redis_user/bad) /value/key" in said


def test_a_bad_change_is_rolled_back(shell: Shell, name: str) -> None:
    good = shell.json("get", f"cache.redis_user/{name}")
    shell("apply", "-f", "-", "--reason", "oops", "--wait", stdin=user(name, "+@all"))
    revision = str(good["revision"])
    listed = shell("rollback", "--to", revision, f"cache.redis_user/{name}", "--dry-run")
    assert f"cache.redis_user/{name}  updated  /value/commands/0  SetUser" in listed
    assert "1 step (dry run: nothing stored)" in listed
    assert "1 updated" in shell("rollback", "--to", revision, "-l", f"shop={name}", "--wait")
    assert shell.json("get", f"cache.redis_user/{name}")["value"] == good["value"]
    assert "all is declared as it was" in shell("rollback", "--to", revision, f"cache.redis_user/{name}")
    assert shell.json("history", f"cache.redis_user/{name}")[0]["reason"] == f"rollback to {revision}"


def test_a_rollback_is_planned_and_held_to(shell: Shell, name: str) -> None:
    good = str(shell.json("get", f"cache.redis_user/{name}")["revision"])
    shell("apply", "-f", "-", "--wait", stdin=user(name, "+@all"))
    chosen = ("--to", good, f"cache.redis_user/{name}")
    planned = shell.json("rollback", *chosen, "--dry-run")["plan_id"]
    shell("apply", "-f", "-", "--wait", stdin=user(name, "+@write"))
    assert "the world moved since the plan" in shell("rollback", *chosen, "--plan", planned, code=1)
    planned = shell.json("rollback", *chosen, "--dry-run")["plan_id"]
    assert "1 updated" in shell("rollback", *chosen, "--plan", planned)


def test_a_rollback_without_a_place_or_to_nothing_is_refused(shell: Shell) -> None:
    assert "--to" in shell("rollback", code=1)
    assert "never had cache.redis_user/nobody" in shell("rollback", "--to", "1", "cache.redis_user/nobody", code=1)
    assert "TYPE/NAME" in shell("rollback", "--to", "1", "cache.redis_user", code=1)


def test_every_new_verb_has_a_help_text_with_an_example(shell: Shell) -> None:
    for verb in ("plan", "diff", "rollback"):
        assert f"coreplane {verb}" in shell(verb, "--help").replace(f"Usage: coreplane {verb}", "")

"""`coreplane import`, as a person types it, against a real daemon and a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from redis import Redis

from controlplane.cli import session
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.provision import Program
from tests.integration.cli_shell import Shell, beside_redis

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shell(
    tmp_path_factory: pytest.TempPathFactory, programs: dict[str, Program], guardian: Guardian
) -> Iterator[Shell]:
    """One daemon and one Redis with users that nobody declared, its target `main`."""

    def left_by_others(redis: Redis) -> None:
        redis.execute_command("ACL", "SETUSER", "old:web", "on", ">secret", "~page:*", "+@read")
        redis.execute_command("ACL", "SETUSER", "old:odd", "on", "skip-sanitize-payload")

    with beside_redis(tmp_path_factory.mktemp("cli-import"), programs["redis"], guardian, left_by_others) as (shell, _):
        yield shell


def test_what_is_printed_is_a_file_that_apply_takes(shell: Shell) -> None:
    done = shell.run("import", "cache.redis_user", "-t", "main", "-m", "old:*", "-l", "from=import")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# /value/passwords: it has a password, which can't be read")
    assert yaml.safe_load(done.stdout) == {
        "type": "cache.redis_user",
        "name": "old-web",
        "labels": {"from": "import"},
        "value": {"target": "main", "username": "old:web", "commands": ["+@read"], "keys": ["page:*"]},
    }
    assert "left out: cache.redis_user/old-odd: it has skip-sanitize-payload" in done.stderr
    assert "1 declaration; 1 with a secret to be named" in done.stderr
    assert "no steps" in shell.run("plan", "-f", "-", stdin=done.stdout).stdout
    shell("apply", "-f", "-", "--wait", stdin=done.stdout)
    again = shell.run("import", "cache.redis_user", "-t", "main", "-m", "old:*")
    assert "0 declarations, 1 declared already" in again.stderr
    shell("delete", "cache.redis_user/old-web", "--deletion", "retain", "--wait")


def test_a_file_of_another_tool_is_converted_and_may_come_in_by_a_pipe(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "users.acl"
    file.write_text("user batch on >swordfish ~job:* +@write\n")
    by_name = json.loads(shell("import", "-f", str(file), "-t", "main", "-o", "json"))
    by_pipe = json.loads(shell("import", "-f", "-", "-t", "main", "-o", "json", stdin=file.read_text()))
    assert by_name == by_pipe
    assert [one["name"] for one in by_name["settings"]] == ["batch"]
    assert "swordfish" not in str(by_name)
    assert shell.run("diff", "-f", "-", stdin=json.dumps(by_name)).returncode == 2


def test_mistakes_are_told_with_the_right_spelling(shell: Shell) -> None:
    assert "coreplane import cache.redis_user -t redis" in shell("import", "-t", "main", code=1)
    assert "declare it first" in shell("import", "cache.redis_user", "-t", "nowhere", code=1)
    assert "can't read" in shell("import", "-f", "/nonexistent", "-t", "main", code=1)
    assert "redis_acl" in shell("import", "-f", "-", "-t", "main", stdin="nothing", code=1)


def test_the_help_shows_an_example(shell: Shell) -> None:
    assert "coreplane import cache.redis_user -t redis -m 'app*' > users.yaml" in shell("import", "--help")


def test_targets_are_completed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    context: Any = SimpleNamespace(params={"setting_type": "cache.redis_user"})
    monkeypatch.setenv("COREPLANE_URL", shell.url)
    assert session.complete_target(context, "ma") == ["main"]
    assert session.complete_target(context, "x") == []

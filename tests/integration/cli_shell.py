"""The command line as a person types it, in this process."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from controlplane.cli.program import main
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.provision import Program
from controlplane.devstack.redis import REDIS
from tests.servers import DaemonProcess, started


class Shell:
    """A shell with COREPLANE_URL set. Its verbs run in this process, through the entry point of the console script:
    starting Python would cost twenty times what a verb does."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url = url
        self.directory = directory

    def __call__(self, *arguments: str, stdin: str = "", code: int = 0) -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == code, f"{arguments} → {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stderr

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setenv("COREPLANE_URL", self.url)
            patch.setattr("sys.stdin", io.StringIO(stdin))
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), out.getvalue(), err.getvalue())

    def json(self, *arguments: str) -> Any:
        return json.loads(self(*arguments, "-o", "json"))


@contextmanager
def beside_redis(
    directory: Path, program: Program, guardian: Guardian, before: Callable[[Redis], None] = lambda _: None
) -> Iterator[tuple[Shell, Redis]]:
    """One daemon and one Redis, declared as its target `main`; `before` finds the Redis as others left it."""
    with asyncio.Runner() as runner:
        server = runner.run(started(REDIS, directory, program, guardian))
        daemon = DaemonProcess(directory / "coreplane", {})
        try:
            with Redis.from_url(server.url) as redis:
                before(redis)
                runner.run(daemon.start())
                shell = Shell(daemon.url, directory)
                target = {"type": "cache.target", "name": "main", "value": {"kind": "redis", "url": server.url}}
                shell("apply", "-f", "-", "--wait", stdin=json.dumps(target))
                yield shell, redis
        finally:
            runner.run(daemon.stop())
            runner.run(server.kill())

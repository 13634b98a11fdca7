"""The command line as a person types it, in this process."""

from __future__ import annotations

import io
import json
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from controlplane.cli.program import main


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

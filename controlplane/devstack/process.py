"""One server process: start it and wait until it answers, keep it alive, stop it in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from typing import Final

from controlplane.devstack.backend import Backend, Place
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.progress import DevstackError, Progress
from controlplane.devstack.provision import Program

PROBE_S: Final = 2.0
LOOK_S: Final = 0.02
TAIL_LINES: Final = 15
BACKOFF_S: Final = 0.5
BACKOFF_CAP_S: Final = 30.0
STEADY_S: Final = 60.0
"""A server that ran for so long begins again with the shortest pause."""


class PortTaken(DevstackError):
    """Another server answers, or listens, where ours should."""


class Server:
    """A server of ours. `extra`: arguments after those of its backend."""

    def __init__(
        self, backend: Backend, place: Place, program: Program, guardian: Guardian, *, extra: Sequence[str] = ()
    ) -> None:
        self._backend = backend
        self._guardian = guardian
        self._program = program
        self._extra = tuple(extra)
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self.place = place

    @property
    def name(self) -> str:
        """Of the backend."""
        return self._backend.name

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._backend.url(self.place.port)

    @property
    def pid(self) -> int:
        """Of the process that was started last; 0 before the first."""
        return self._process.pid if self._process is not None else 0

    async def start(self) -> None:
        """Start it and wait until it answers itself. DevstackError (with the end of its log) or PortTaken when it doesn't."""
        self._stopping = False
        self._backend.prepare(self.place)
        self.place.log_path.parent.mkdir(parents=True, exist_ok=True)
        command = [*self._backend.command(self.place, self._program.path), *self._extra]
        with self.place.log_path.open("ab") as log:
            begin = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *self._guardian.guarded(command),
                stdin=self._guardian.stdin,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                env=self._environment(),
                cwd=self.place.home,
                start_new_session=True,
            )
        try:
            await self._ready(self._process, begin)
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL when it takes too long. Nothing when it has ended."""
        self._stopping = True
        process = self._process
        if process is None:
            return
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._backend.stop_s):
                await process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    async def restart(self) -> None:
        """Stop it if it runs, and start it again in the same place."""
        await self.stop()
        await self.start()

    async def keep(self, progress: Progress) -> None:
        """Start it again whenever it ends by itself, with growing pauses; returns after `stop`."""
        loop = asyncio.get_running_loop()
        pause_s = BACKOFF_S
        while self._process is not None:
            began = loop.time()
            code = await self._process.wait()
            if self._stopping:
                return
            pause_s = BACKOFF_S if loop.time() - began > STEADY_S else pause_s
            progress(self.name, f"ended by itself ({_told(code)}), starts again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, BACKOFF_CAP_S)
            await self._try_again(progress)

    async def _try_again(self, progress: Progress) -> None:
        try:
            await self.start()
        except DevstackError as exc:
            self._stopping = False
            progress(self.name, exc.message)
        else:
            progress(self.name, f"runs again at {self.url} (pid {self.pid})", done=True)

    async def _ready(self, process: asyncio.subprocess.Process, log_begin: int) -> None:
        try:
            async with asyncio.timeout(self._backend.ready_s):
                while not await self._answers(process):
                    await asyncio.sleep(LOOK_S)
                    if process.returncode is not None:
                        raise self._ended_early(process.returncode, log_begin)
        except TimeoutError as exc:
            msg = f"{self.name} doesn't answer at {self.url} after {self._backend.ready_s:g} s"
            raise DevstackError(msg, f"look into {self.place.log_path}") from exc

    async def _answers(self, process: asyncio.subprocess.Process) -> bool:
        try:
            async with asyncio.timeout(PROBE_S):
                answering = await self._backend.probe(self.place.port)
        except (OSError, EOFError, ValueError):  # TimeoutError is an OSError
            return False
        if answering != process.pid:
            msg = f"another {self.name} (pid {answering}) answers at {self.url}"
            raise PortTaken(msg, "stop it, or let another port be chosen")
        return True

    def _ended_early(self, code: int, log_begin: int) -> DevstackError:
        with self.place.log_path.open("rb") as log:
            log.seek(log_begin)
            text = log.read().decode(errors="replace")
        tail = "\n".join(text.rstrip().splitlines()[-TAIL_LINES:])
        msg = f"{self.name} ended before it was ready ({_told(code)}):\n{tail}"
        kind = PortTaken if "in use" in text.lower() else DevstackError
        return kind(msg, f"all of its output is in {self.place.log_path}")

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        libraries = {"LD_LIBRARY_PATH": os.pathsep.join(map(str, self._program.libraries))}
        own = self._backend.environment(self.place)
        return {**kept, "LC_ALL": "C", **(libraries if self._program.libraries else {}), **own}


def _told(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

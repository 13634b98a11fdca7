"""`coreplane serve --config FILE`, with an event loop that remembers its longest callbacks: `watched_daemon.py FILE`.

SIGUSR1 writes them beside the configuration, as `blocked.json`, and begins anew. `wall_ms` counts what other threads and
other processes took away meanwhile, `cpu_ms` only the callback itself.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import json
import signal
import sys
import time
from asyncio import events
from pathlib import Path
from typing import Any

from controlplane import app
from controlplane.cli import configuration, daemon, serving
from controlplane.telemetry import logs

KEPT = 10


class Watch:
    """The longest callbacks since the last report."""

    def __init__(self) -> None:
        self._longest: list[tuple[float, int, dict[str, Any]]] = []
        self._count = 0
        self._collecting = 0.0
        self._collected_ms = 0.0

    def install(self) -> None:
        run = events.Handle._run

        def watched(handle: Any) -> None:
            wall, cpu, self._collected_ms = time.perf_counter(), time.thread_time(), 0.0
            what = _name(handle)
            run(handle)
            self._note((time.perf_counter() - wall) * 1000, (time.thread_time() - cpu) * 1000, what)

        events.Handle._run = watched  # type: ignore[method-assign]
        gc.callbacks.append(self._collect)

    def _collect(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.perf_counter()
        else:
            self._collected_ms += (time.perf_counter() - self._collecting) * 1000

    def _note(self, wall_ms: float, cpu_ms: float, what: Any) -> None:
        if len(self._longest) == KEPT and wall_ms <= self._longest[0][0]:
            return
        self._count += 1
        row = {"wall_ms": wall_ms, "cpu_ms": cpu_ms, "gc_ms": self._collected_ms, "what": str(what())}
        push = heapq.heappushpop if len(self._longest) == KEPT else heapq.heappush
        push(self._longest, (wall_ms, self._count, row))

    def report(self, path: Path) -> None:
        rows = [row for _, _, row in sorted(self._longest, reverse=True)]
        self._longest.clear()
        part = path.with_suffix(".part")
        part.write_text(json.dumps(rows))
        part.replace(path)


def _name(handle: Any) -> Any:
    """A function that says what ran; asked only when it was long."""
    callback = handle._callback
    task = getattr(callback, "__self__", None)
    if not isinstance(task, asyncio.Task):
        return lambda: repr(callback)
    coroutine = task.get_coro()
    frame = getattr(coroutine, "cr_frame", None)
    line = frame.f_lineno if frame is not None else 0
    return lambda: f"{task.get_name()}: {getattr(coroutine, '__qualname__', coroutine)} from line {line}"


def main() -> None:
    path = Path(sys.argv[1])
    checked = configuration.load(path, {})
    logs.configure(checked.telemetry.log_format, checked.telemetry.log_level)
    watch = Watch()
    watch.install()

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, watch.report, path.parent / "blocked.json")
        await app.serve(checked, ready=serving.announce)

    asyncio.run(daemon.until_signal(serve()))


if __name__ == "__main__":
    main()

"""A process with a log, for tests that kill it: `python log_worker.py PATH` writes for ever and prints what was acknowledged.

Lines: `s N` for record N of the settings log, `j N` for commit N of the journal. A line is printed only after its answer.
"""

import asyncio
import sys
from pathlib import Path

from controlplane.log.ports import Commit, Outgoing
from controlplane.log.sqlite import open_sqlite

WRITERS = 8


async def main(path: Path, run: str) -> None:
    log = await open_sqlite(path, shards=2)
    writer = await log.journal.open_shard(0)
    print("ready", flush=True)

    async def append(index: int) -> None:
        number = 0
        while True:
            name = f"{run}-{index}-{number}"
            await log.settings.append(name.encode().ljust(300))
            print("s", name, flush=True)
            number += 1

    async def commit(index: int) -> None:
        number = 0
        while True:
            name = f"{run}-{index}-{number}"
            status = Outgoing(f"key-{index}", name.encode())
            await writer.commit(Commit(events=[Outgoing(name, b"e" * 300)], statuses=[status]))
            print("j", name, flush=True)
            number += 1

    await asyncio.gather(*map(append, range(WRITERS)), *map(commit, range(WRITERS)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))

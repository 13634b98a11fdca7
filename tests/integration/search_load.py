"""People who write, update, delete and search through an alias at a steady rate, and know what must come of it."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from reconcilers.search.wire import basic

PAUSE_S = 0.01
_MOVING = re.compile(r": (?:409|404) ")
UPDATED = 50
"""Documents of each writer that are only ever updated, never deleted."""


@dataclass
class Load:
    """What was asked for and answered. Every writer has ids of its own, so that the last acknowledged word counts."""

    session: aiohttp.ClientSession
    base: str
    index: str
    expected: dict[str, int] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    requests: int = 0
    conflicts: int = 0
    longest_s: float = 0.0
    outages: list[list[float]] = field(default_factory=list)
    """When the server was known to be down, [from, to]: what fails then is explained, and its outcome is open."""
    explained: int = 0
    doubtful: dict[str, set[int | None]] = field(default_factory=dict)
    """Document → what it may be, since a write of it got no answer. None: gone."""

    async def request(self, method: str, path: str, body: Any = None, *, absent: bool = False) -> dict[str, Any]:
        started = time.monotonic()
        kind = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        url = f"{self.base}/{self.index}{path}"
        try:
            async with self.session.request(method, url, data=data, headers={"content-type": kind}) as answer:
                content: dict[str, Any] = await answer.json()
                if answer.status >= 400 and not (absent and answer.status == 404):
                    content = self._failed(started, f"{method} {path}: {answer.status} {str(content)[:700]}")
                elif content.get("errors"):
                    content = self._failed(started, f"{method} {path}: {str(content)[:700]}")
        except (aiohttp.ClientError, TimeoutError) as exc:
            content = self._failed(started, f"{method} {path}: {exc!r}")
        self.requests += 1
        self.longest_s = max(self.longest_s, time.monotonic() - started)
        return content

    def _failed(self, started: float, what: str) -> dict[str, Any]:
        if any(started <= end for _, end in self.outages):
            self.explained += 1
        else:
            self.failures.append(what)
        return {"failed": True}

    async def write(self, number: int, stop: asyncio.Event) -> None:
        """Index, update, delete and bulk in turn."""
        rng = random.Random(number)
        ids = [f"w{number}-{i}" for i in range(200)]
        turn = 0
        while not stop.is_set():
            turn += 1
            one = rng.choice(ids[:UPDATED] if turn % 4 == 1 else ids[UPDATED:])
            match turn % 4:
                case 0:
                    answer = await self.request("PUT", f"/_doc/{one}", {"n": turn, "title": f"turn {turn}"})
                    self.known(one, turn, answer)
                case 1:
                    if one in self.expected and one not in self.doubtful:
                        answer = await self.update(one, turn)
                    else:
                        answer = await self.request("PUT", f"/_doc/{one}", {"n": turn, "title": f"turn {turn}"})
                    self.known(one, turn, answer)
                case 2:
                    self.known(one, None, await self.request("DELETE", f"/_doc/{one}", absent=True))
                case _:
                    part = rng.sample(ids[UPDATED:], 3)
                    rows = [row for id_ in part for row in ({"index": {"_id": id_}}, {"n": turn, "title": "bulk"})]
                    body = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
                    answer = await self.request("POST", "/_bulk", body)
                    for id_ in part:
                        self.known(id_, turn, answer)
            await asyncio.sleep(PAUSE_S)

    async def update(self, id_: str, value: int) -> dict[str, Any]:
        """Repeated when it conflicts, as clients of `_update` do anyway: it reads the old generation and writes to the new
        one when the alias moves in between, which the server refuses. Its read isn't held, as its write would be: what was
        written last before the alias moved isn't carried over yet, and for so long is missing (404)."""
        path = f"/_update/{id_}?retry_on_conflict=5"
        for _ in range(50):
            before = len(self.failures)
            answer = await self.request("POST", path, {"doc": {"n": value}})
            if len(self.failures) == before or not _MOVING.search(self.failures[-1]):
                break
            self.failures.pop()
            self.conflicts += 1
            await asyncio.sleep(10 * PAUSE_S)
        return answer

    def known(self, id_: str, value: int | None, answer: dict[str, Any]) -> None:
        """What a document is from now on; what it may be, when nobody knows whether the write happened."""
        if "failed" in answer:
            self.doubtful.setdefault(id_, {self.expected.get(id_)}).add(value)
            return
        self.doubtful.pop(id_, None)
        if value is None:
            self.expected.pop(id_, None)
            self.deleted.add(id_)
        else:
            self.expected[id_] = value
            self.deleted.discard(id_)

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """The server is down inside."""
        span = [time.monotonic(), float("inf")]
        self.outages.append(span)
        yield
        span[1] = time.monotonic()

    async def search(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.request("POST", "/_search", {"query": {"match": {"title": "turn"}}, "size": 3})
            await self.request("GET", f"/_doc/w0-{random.randrange(UPDATED)}", absent=True)
            await asyncio.sleep(PAUSE_S)

    async def wrong(self) -> dict[str, list[str]]:
        """What was lost, is stale, or came back."""
        await self.request("POST", "/_refresh")
        found: dict[str, int] = {}
        after: list[Any] = []
        while True:
            body: dict[str, Any] = {"size": 5_000, "sort": ["_seq_no"], "query": {"match_all": {}}}
            if after:
                body["search_after"] = after
            hits = (await self.request("POST", "/_search", body))["hits"]["hits"]
            found |= {hit["_id"]: int(hit["_source"]["n"]) for hit in hits}
            if len(hits) < 5_000:
                break
            after = hits[-1]["sort"]
        sure = {id_: n for id_, n in self.expected.items() if id_ not in self.doubtful}
        stale = [id_ for id_, n in sure.items() if found.get(id_, n) != n]
        return {
            "lost": [id_ for id_ in sure if id_ not in found],
            "stale": stale + [id_ for id_, ns in self.doubtful.items() if found.get(id_) not in ns],
            "resurrected": [id_ for id_ in found if id_ not in sure and id_ not in self.doubtful],
        }


@asynccontextmanager
async def load(base: str, auth: tuple[str, str], index: str, *, writers: int = 4) -> AsyncIterator[Load]:
    """Runs until the block ends; everything under way is answered then."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(headers={"authorization": basic(*auth)}, timeout=timeout) as session:
        people = Load(session, base, index)
        stop = asyncio.Event()
        tasks = [asyncio.create_task(people.write(number, stop)) for number in range(writers)]
        tasks.append(asyncio.create_task(people.search(stop)))
        try:
            yield people
        finally:
            stop.set()
            await asyncio.gather(*tasks)


async def settled(base: str, auth: tuple[str, str], people: Load) -> dict[str, list[str]]:
    """What went wrong, looked at after the load has ended."""
    async with aiohttp.ClientSession(headers={"authorization": basic(*auth)}) as session:
        people.session = session
        return await people.wrong()

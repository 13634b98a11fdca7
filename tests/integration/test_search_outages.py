"""The node is killed in a migration while people write: what was acknowledged stays, nothing comes back, and it goes on.

`COREPLANE_NODE_KILLS=all` kills it at every moment of `MOMENTS`, one after the other in one migration; each takes a start of
the server, so a run of all tests has those that differ most.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

import pytest

from controlplane.devstack.elasticsearch import credentials
from controlplane.devstack.guardian import Guardian
from reconcilers.contract import TransientError, Unreachable
from reconcilers.search.wire import OutcomeUnknown
from tests.integration.search_load import Load, load, settled
from tests.integration.search_world import INDEX, SearchWorld, opened
from tests.integration.test_search_migration import seed, serving, value
from tests.servers import SharedServer, elasticsearch_in

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

NAME = "outage-node"
OLD, NEW = rf"/{NAME}-g1-\w+", rf"/{NAME}-g2-\w+"
MOMENTS = {
    "made": ("PUT", NEW),
    "copying": ("POST", "/_reindex"),
    "listing": ("POST", f"{OLD}/_search"),
    "comparing": ("POST", f"{NEW}/_search"),
    "feeding": ("POST", f"{NEW}/_bulk"),
    "verifying": ("POST", f"{NEW}/_mget"),
    "held": ("PUT", f"{NEW}/_settings"),
    "swapped": ("POST", "/_aliases"),
    "blocked": ("PUT", f"{OLD}/_block/write"),
    "released": ("PUT", f"{NEW}/_settings"),
    "retired": ("PUT", f"{OLD}/_mapping"),
}
"""Moment → the request after which it is: the server did it, and its answer is lost."""
USUAL = ("feeding", "swapped")


@pytest.fixture(scope="module")
def elasticsearch_server(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[SharedServer]:
    """A node of its own, to be killed: one that holds the indices of a whole run takes long to come back."""
    server = elasticsearch_in(tmp_path_factory.mktemp("outages"), guardian)
    yield server
    server.end()


class Killer:
    """Kills the server at each of the moments, and starts it again."""

    def __init__(self, world: SearchWorld, server: Any, people: Load) -> None:
        self.left = list(MOMENTS) if os.environ.get("COREPLANE_NODE_KILLS") == "all" else list(USUAL)
        self._world, self._server, self._people = world, server, people
        self._call = world.wire.call
        self._healing: asyncio.Task[None] | None = None
        world.wire.call = self.call  # type: ignore[method-assign]

    @property
    def is_down(self) -> bool:
        return self._healing is not None and not self._healing.done()

    async def call(self, method: str, path: str, *args: Any, **more: Any) -> Any:
        answer = await self._call(method, path, *args, **more)
        self._look_after()
        if self.left:
            wanted, pattern = MOMENTS[self.left[0]]
            if method == wanted and re.fullmatch(pattern, path):
                await self.healed()  # the server answers before it is known to be well: no moment is missed for that
                self._healing = asyncio.create_task(self._outage(self.left.pop(0)))
                raise OutcomeUnknown("killed before it could answer")
        return answer

    async def _outage(self, moment: str) -> None:
        print("killed", moment)
        async with self._people.outage():
            await self._server.kill()
            await self._server.start()
            params = {"wait_for_status": "yellow", "timeout": "60s"}
            health = await self._call("GET", f"/_cluster/health/{NAME}*", params=params, timeout_s=70)
            assert health.status == 200, health

    def _look_after(self) -> None:
        if self._healing is not None and self._healing.done():
            self._healing.result()
            self._healing = None

    async def healed(self) -> None:
        """Once the server is up again, as far as it was down."""
        if self._healing is not None:
            await asyncio.wait([self._healing])
        self._look_after()


async def test_a_node_that_is_killed_in_any_phase_costs_no_document(elasticsearch_server: Any) -> None:
    auth = credentials(elasticsearch_server.place)
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), NAME)
        seeds = await seed(world, NAME)
        async with load(elasticsearch_server.url, auth, NAME, writers=2) as people:
            people.expected |= seeds
            killer = Killer(world, elasticsearch_server, people)
            is_done = False
            while not is_done or killer.left:
                try:
                    is_done = (await world.converge(INDEX, value("long"), NAME)).converged
                except (Unreachable, TransientError):
                    is_done = False
                assert not is_done or not killer.left, f"{killer.left} never came"
                if killer.is_down:
                    await asyncio.sleep(0.05)
            await killer.healed()
            answered = people.requests
            async with asyncio.timeout(60):
                while people.requests < answered + 50:
                    await asyncio.sleep(0.05)
    assert people.failures == []
    assert people.explained, "nobody noticed"
    assert people.deleted
    assert await settled(elasticsearch_server.url, auth, people) == {"lost": [], "stale": [], "resurrected": []}
    async with opened(elasticsearch_server) as world:
        (now,) = await serving(world, NAME)
        assert now.startswith(f"{NAME}-g2-")
        mapping = await world.wire.ask("GET", f"/{now}/_mapping")
        assert mapping[now]["mappings"]["properties"]["n"]["type"] == "long"


async def test_a_move_of_the_aliases_whose_answer_is_lost_costs_no_document(elasticsearch_server: Any) -> None:
    """The node lives on, so whatever is sent next arrives: writers mustn't be let go before everything is carried over."""
    auth, name, lost = credentials(elasticsearch_server.place), "outage-answer", 0
    async with opened(elasticsearch_server) as world:
        await world.converge(INDEX, value("integer"), name)
        seeds = await seed(world, name)
        call = world.wire.call

        async def deaf(method: str, path: str, *args: Any, **more: Any) -> Any:
            nonlocal lost
            answer = await call(method, path, *args, **more)
            if (method, path) == ("POST", "/_aliases") and not lost:
                lost += 1
                raise OutcomeUnknown("the answer was lost")
            return answer

        world.wire.call = deaf  # type: ignore[method-assign]
        async with load(elasticsearch_server.url, auth, name) as people:
            people.expected |= seeds
            with contextlib.suppress(OutcomeUnknown):
                await world.converge(INDEX, value("long"), name)
            assert (await world.converge(INDEX, value("long"), name)).converged
            answered = people.requests
            async with asyncio.timeout(60):
                while people.requests < answered + 50:
                    await asyncio.sleep(0.05)
    assert lost
    assert people.failures == []
    assert await settled(elasticsearch_server.url, auth, people) == {"lost": [], "stale": [], "resurrected": []}

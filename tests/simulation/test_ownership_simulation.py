"""Two processes over one log: whoever lost a shard begins nothing any more, whatever it still believes."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from controlplane.domain.sharding import shard_of
from tests.simulation.world import CONFIG, Faults, World, check_intents, simulate

SHARDS = range(4)
MAIN = shard_of("default", "mesh", "main", len(SHARDS))


def check_owners(world: World) -> None:
    """Every request was written by the process that took the shard last, or directly after somebody else took it."""
    takes = [(at, name) for at, shard, name in world.takes if shard == MAIN]
    for at, process in world.server.sent:
        taken_at, owner = [take for take in takes if take[0] <= at][-1]
        assert process == owner or at - taken_at <= CONFIG.start_deadline_s, (at, process, takes)


def test_a_shard_that_goes_back_and_forth_is_driven_by_its_owner_alone():
    async def scenario():
        a = World(1)
        b = World(1, beside=a, name="b")
        await a.start()
        await b.start(own=())
        await a.declare_target()
        for turn in range(6):
            for number in range(10):
                await (a if turn % 2 else b).declare(f"item{number}", turn + 1)
            await b.controller.own(() if turn % 2 else SHARDS)
            await a.controller.own(SHARDS if turn % 2 else ())
            await a.until_settled(30)
        assert {process for _, process in a.server.sent} == {"a", "b"}
        assert not a.server.second_creates
        check_owners(a)
        check_intents(await a.events())
        await a.stop()
        await b.stop()

    simulate(scenario)


def test_an_orderly_hand_over_leaves_no_effect_in_doubt():
    async def scenario():
        a = World(2)
        b = World(2, beside=a, name="b")
        a.server.faults = Faults(slow_s=0.5)
        await a.start()
        await b.start(own=())
        await a.declare_target()
        for number in range(20):
            await a.declare(f"item{number}", 1)
        await a.until(lambda: len(a.server.sent) > 3, 30, "under way")
        await a.controller.own(())
        await b.controller.own(SHARDS)
        await b.until_settled(60)
        events = await a.events()
        assert not [e for e in events if e["event_type"] == "ActionUnknown"]
        check_owners(a)
        check_intents(events)
        await a.stop()
        await b.stop()

    simulate(scenario)


def test_what_is_declared_while_another_process_owns_the_shard_is_known_when_it_comes_back():
    async def scenario():
        a = World(3, shards=1)
        b = World(3, beside=a, name="b")
        await a.start()
        await b.start(own=())
        await a.declare_target()
        await a.declare("first", 1)
        await a.until_settled(30)
        await a.controller.own(())
        await b.controller.own((0,))
        await b.declare("second", 2)
        await b.declare("third", 3, depends_on=["mesh.item/second"])
        await b.until_settled(30)
        await b.controller.own(())
        a.server.restart(empty=True)
        await a.controller.own((0,))
        await a.until_settled(CONFIG.sweep_s * 1.2 + 10)
        created = [name for _, step, name in a.server.effects if step == "CreateItem"]
        assert sorted(created[-3:]) == ["first", "second", "third"]
        await a.stop()
        await b.stop()

    simulate(scenario)


def test_an_owner_that_hears_of_its_intent_only_after_a_takeover_sends_nothing():
    async def scenario():
        a = World(4)
        b = World(4, beside=a, name="b")
        await a.start()
        await b.start(own=())
        await a.declare_target()
        await a.declare("first", 1)
        await a.until_settled(30)
        a.life.silent_after = "ActionStarted"
        await b.declare("second", 2)
        await a.until(lambda: not a.life.answered.is_set(), 5, "intent committed")
        await b.controller.own(SHARDS)
        await asyncio.sleep(3)
        a.life.silent_after = ""
        a.life.answered.set()
        await asyncio.sleep(0.5)
        assert "second" not in a.server.objects
        await a.controller.own(())
        await b.until_settled(30)
        events = await a.events()
        assert [e["status"] for e in events if e["event_type"] == "ActionUnknown"] == ["unknown"]
        check_owners(a)
        check_intents(events)
        await a.stop()
        await b.stop()

    simulate(scenario)


def test_an_effect_that_a_living_predecessor_is_still_at_is_waited_for():
    async def scenario():
        a = World(6)
        b = World(6, beside=a, name="b")
        owner = "a"

        async def may_take(name: str, _shard: int) -> bool:
            return name == owner

        a.may_take, b.may_take = partial(may_take, "a"), partial(may_take, "b")
        await a.start()
        await b.start(own=())
        await a.declare_target()
        await a.declare("first", 1)
        await a.until_settled(30)
        a.server.faults = Faults(applying_s=4.0, last_landing_s=3.5)  # each within its limit
        sent = len(a.server.sent)
        await a.declare("second", 2)
        await a.until(lambda: len(a.server.sent) > sent, 5, "the create is under way")
        owner = "b"
        await b.controller.own(SHARDS)
        await asyncio.sleep(4.5)
        a.server.faults = Faults()
        await b.until_settled(60)
        assert a.server.objects == {"first": 1, "second": 2}
        assert not a.server.second_creates
        await a.controller.own(())
        await a.stop()
        await b.stop()

    simulate(scenario)


def test_an_owner_whose_fold_is_behind_does_not_put_the_backend_back():
    async def scenario():
        a = World(5)
        b = World(5, beside=a, name="b")
        await a.start()
        await b.start(own=())
        await a.declare_target()
        await a.declare("a", 1)
        await a.until_settled(30)
        await b.replica.reach(a.replica.state.position, 5)
        await b.supervisor.stop_one("replica")
        await a.declare("a", 2)
        await a.until_settled(30)
        await a.controller.own(())
        await b.controller.own(SHARDS)
        await asyncio.sleep(60)
        assert a.server.objects == {"a": 2}
        b.supervisor.start("replica", b.replica.run)
        await b.until_settled(60)
        assert [step for _, step, _ in a.server.effects] == ["CreateItem", "ResizeItem"]
        await a.stop()
        await b.stop()

    simulate(scenario)


@pytest.mark.parametrize("seed", range(20))
def test_silent_networks_and_two_owners_at_once_never_let_the_loser_begin(seed):
    async def scenario():
        a = World(5000 + seed)
        b = World(0, beside=a, name="b")
        print(f"seed {5000 + seed}")
        rng = a.rng
        a.server.faults = Faults(lost_reply=0.05, refused=0.05, slow_s=0.2)
        await a.start()
        await b.start(own=())
        await a.declare_target()
        for _ in range(25):
            one, other = rng.sample((a, b), 2)
            for _ in range(rng.randrange(1, 6)):
                name = f"item{rng.randrange(10)}"
                if rng.random() < 0.2 and f"default/mesh.item/{name}" in other.replica.state.entries:
                    await other.retire(name)
                else:
                    await other.declare(name, rng.randrange(1, 100))
            await other.controller.own(SHARDS)
            one.life.heard.clear()
            if rng.random() < 0.5:
                await one.controller.own(())
            await asyncio.sleep(rng.random() * rng.choice((0.3, 2, 12)))
            one.life.heard.set()
            await asyncio.sleep(rng.random())
        a.server.faults = Faults()
        await b.controller.own(())
        await a.controller.own(SHARDS)
        await a.until_settled(600)
        assert not a.server.second_creates
        check_owners(a)
        check_intents(await a.events())
        await a.stop()
        await b.stop()

    simulate(scenario)

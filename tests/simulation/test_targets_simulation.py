"""Targets that come, go, flap and move, and what becomes of their settings meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from controlplane.domain.sharding import shard_of
from reconcilers.contract import Hint, Unreachable
from tests.simulation.world import CONFIG, Faults, World, check_intents, simulate

TARGET = "default/mesh.target/main"


def test_a_target_whose_connection_breaks_each_time_is_not_hammered():
    async def scenario():
        world = World(30)
        for _ in range(100):
            world.server.hints.put_nowait(Unreachable("broken pipe"))
        await world.start()
        await world.declare_target()
        for number in range(20):
            await world.declare(f"item{number}", 1)
        await asyncio.sleep(120)
        events = [e["event_type"] for e in await world.events()]
        assert events.count("TargetUp") < 15
        assert events.count("Converged") < 25
        await world.stop()

    simulate(scenario)


def test_settings_that_are_as_they_were_after_an_outage_say_nothing_new():
    async def scenario():
        world = World(31)
        await world.start()
        await world.declare_target()
        for number in range(20):
            await world.declare(f"item{number}", 1)
        await world.until_settled(30)
        converged = sum(e["event_type"] == "Converged" for e in await world.events())
        world.server.up = False
        world.server.hints.put_nowait(Unreachable("broken pipe"))
        await world.until(lambda: world.phase("item7") == "Unknown", 5, "unknown")
        world.server.up = True
        await world.until_settled(CONFIG.backoff_cap_s + 5)
        assert sum(e["event_type"] == "Converged" for e in await world.events()) == converged
        await world.stop()

    simulate(scenario)


def test_a_target_is_ready_only_when_the_server_that_is_declared_now_answers():
    async def scenario():
        world = World(32)
        world.server.dead_urls = {"elsewhere:"}
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        await world.declare_target(url="elsewhere:")
        for _ in range(20):
            await asyncio.sleep(0.01)
            status = world.statuses.get(TARGET)
            assert not (status.holds("Ready") and status.converged_generation == 2)
        await world.until(lambda: world.phase("a") == "Unknown", 5, "unknown")
        await world.declare_target(url="back:")
        await world.until_settled(5)
        await world.stop()

    simulate(scenario)


def test_a_target_declared_anew_with_the_same_address_is_ready_for_its_new_generation_at_once():
    async def scenario():
        world = World(33)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        closed = world.server.closed
        change = {"op": "declare", "key": TARGET, "body": {"value": {"url": "sim:"}, "policy": {"protect": True}}}
        await world.submit(change)
        await world.until_settled(1)
        assert world.server.closed == closed
        await world.stop()

    simulate(scenario)


@pytest.mark.parametrize("pause_s", [0.0, 0.001, 0.01, 1.0])
def test_a_target_that_loses_its_last_key_and_gets_it_back_goes_on_with_new_event_ids(pause_s):
    async def scenario():
        world = World(34)
        await world.start()
        tasks = []

        async def again() -> None:
            await asyncio.sleep(pause_s)
            await world.declare_target()
            await world.declare("a", 2)

        def folded(offset, request, verdict) -> None:
            if (request.changes[0].op, request.changes[0].key) == ("forget", TARGET):
                tasks.append(asyncio.get_running_loop().create_task(again()))

        world.replica.listen(folded)
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        for turn in range(3):
            await world.retire("a")
            await world.retire_target()
            await world.until(lambda turn=turn: len(tasks) == turn + 1 and tasks[-1].done(), 20, "gone and back")
            await world.until_settled(10)
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


def test_ended_loops_and_forgotten_keys_leave_nothing_in_memory():
    async def scenario():
        world = World(35)
        await world.start()
        world.server.faults = Faults(refused=0.3, lost_reply=0.1)
        for number in range(10):
            await world.declare_target(f"target{number}")
            await world.declare(f"item{number}", 1, target=f"target{number}")
        await asyncio.sleep(30)
        world.server.faults = Faults()
        await world.until_settled(120)
        for number in range(10):
            await world.retire(f"item{number}")
            await world.retire_target(f"target{number}")
        await world.until(lambda: not world.replica.state.entries, 120, "all forgotten")
        await asyncio.sleep(1)
        controller = world.controller
        assert controller._loops == {}
        assert controller._loop_supervisor._tasks == {}
        assert controller._desired.catalogue._resolved == {}
        assert list(world.statuses.all()) == []
        assert all(not shard.statuses and not shard._commits for shard in controller._shards.values())
        assert len(controller._supervisor._tasks) == 1 + world.log.journal.shards
        await world.stop()

    simulate(scenario)


def test_a_setting_that_moves_to_another_shard_leaves_no_second_status_behind():
    async def scenario():
        world = World(36)
        names = ("main", *(f"t{number}" for number in range(20)))
        shards = {name: shard_of("default", "mesh", name, 4) for name in names}
        other = next(name for name in names if shards[name] != shards["main"])
        await world.start()
        for name in ("main", other):
            await world.declare_target(name)
        await world.declare("a", 1)
        await world.until_settled(30)
        await world.declare("a", 2, target=other, policy={"adopt": "always"})
        await world.until_settled(30)
        assert [
            shard.index for shard in world.controller._shards.values() if "default/mesh.item/a" in shard.statuses
        ] == [shards[other]]
        await world.kill()
        await world.start()
        await world.until_settled(30)
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


def test_a_key_declared_while_its_target_connects_does_not_wait_for_the_next_sweep():
    async def scenario():
        world = World(37)
        await world.start()
        world.server.up = False
        await world.declare_target()
        await asyncio.sleep(10)
        world.server.up = True
        for number in range(300):
            await world.declare(f"item{number}", 1)
            await asyncio.sleep(0.1)
        await world.until_settled(5)
        await world.stop()

    simulate(scenario)


@pytest.mark.parametrize("call", ["sample", "observe", "hints", "connect"])
def test_a_bug_in_a_backend_is_counted_and_said_and_healed_from(call):
    async def scenario():
        world = World(38)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        world.server.bugs = {call}
        world.server.hints.put_nowait(Unreachable("broken pipe") if call == "connect" else Hint(None, "look"))
        await world.declare("a", 2)
        await asyncio.sleep(200)
        assert world.metrics.value("coreplane_bugs_total", where=call) >= 1
        world.server.bugs = set()
        await world.until_settled(CONFIG.backoff_cap_s + CONFIG.sweep_s * 1.2)
        if call == "sample":
            assert [e["event_type"] for e in await world.events()].count("TargetUp") == 1
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


def test_a_backend_that_tells_too_few_outcomes_leaves_them_unknown_and_not_open():
    async def scenario():
        world = World(39)
        await world.start()
        await world.declare_target()
        await world.until(lambda: world.statuses.get(TARGET) is not None, 5, "up")
        world.server.bugs = {"outcomes"}
        await world.declare("a", 1)
        await world.until(lambda: world.phase("a") == "Unknown", 5, "unknown")
        world.server.bugs = set()
        await world.until_settled(30)
        check_intents(await world.events())
        assert world.server.second_creates == []
        await world.stop()

    simulate(scenario)


def test_a_kind_that_fails_on_one_value_stalls_that_setting_and_no_other():
    async def scenario():
        world = World(40)

        def identify(name: str, value: object) -> str:
            if name == "bad":
                msg = "never thought of that"
                raise KeyError(msg)
            return name

        world.kind = {"identify": identify}
        await world.start()
        await world.declare_target()
        for name in ("a", "bad", "b"):
            await world.declare(name, 1)
        await world.until(lambda: world.phase("a") == world.phase("b") == "Ready", 10, "the others")
        await world.until(lambda: world.reason("bad") == "InternalError", 10, "said")
        await world.retire("bad")
        await world.until(lambda: "default/mesh.item/bad" not in world.replica.state.entries, 10, "forgotten")
        await world.stop()

    simulate(scenario)


def test_what_an_older_connection_complains_of_does_not_cost_the_newer_one():
    async def scenario():
        world = World(41)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        world.server.faults = Faults(observing_s=2.0)
        await world.declare("a", 2)
        await asyncio.sleep(0.5)
        world.server.faults = Faults()
        await world.declare_target(url="other:")
        await world.until_settled(5)
        assert "TargetDown" not in [e["event_type"] for e in await world.events()]
        assert world.server.closed == 1
        await world.stop()

    simulate(scenario)


def test_a_loop_that_crashes_while_an_effect_is_under_way_ends_it_as_unknown():
    async def scenario():
        world = World(42)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        world.server.faults = Faults(applying_s=4.0)
        await world.declare("b", 1)
        await asyncio.sleep(0.1)
        world.server.bugs = {"incarnation"}
        world.server.hints.put_nowait(Unreachable("broken pipe"))
        await asyncio.sleep(3)
        world.server.bugs = set()
        world.server.faults = Faults()
        await world.until_settled(60)
        assert "ActionUnknown" in await world.types_of("b")
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


@pytest.mark.parametrize("seed", range(10))
def test_no_key_is_overlooked_that_was_in_a_pass_when_its_target_came_up(seed):
    async def scenario():
        world = World(4000 + seed)
        world.server.up = False
        await world.start()
        await world.declare_target()
        world.log_faults.answer_s = 2.0
        for number in range(20):
            await world.declare(f"item{number}", 1)
            await asyncio.sleep(world.rng.random() * 0.3)
            if number == 10:
                world.server.up = True
        world.log_faults.answer_s = 0.0
        await world.until_settled(25)
        await world.stop()

    simulate(scenario)

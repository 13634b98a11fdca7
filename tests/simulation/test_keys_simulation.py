"""Single settings in circumstances that are hard on them."""

from __future__ import annotations

import asyncio

from tests.simulation.world import CONFIG, LANDING_S, Faults, World, check_intents, simulate


def test_a_sweep_that_saw_the_world_before_an_effect_got_lost_does_not_cut_its_hold_short():
    async def scenario():
        world = World(50)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        del world.server.objects["a"]
        world.server.faults = Faults(observing_s=0.5)
        world.controller.loop(next(iter(world.controller._loops))).sweep_soon()
        await asyncio.sleep(0.1)
        world.server.faults = Faults(lost_reply=1.0)
        await world.declare("a", 2)
        await world.until(lambda: world.phase("a") == "Unknown", 0.3, "in doubt while the sweep runs")
        world.server.faults = Faults()
        await world.until_settled(LANDING_S + CONFIG.start_deadline_s + 5)
        assert world.server.second_creates == []
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


def test_what_stands_on_a_setting_stays_ready_and_silent_when_that_gets_a_new_generation():
    async def scenario():
        world = World(51)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.declare("b", 1, depends_on=["mesh.item/a"])
        await world.until_settled(30)
        said = len(await world.types_of("b"))
        await world.declare("a", 1, policy={"protect": True})
        await world.until_settled(2)
        await world.declare("a", 5)
        await world.until_settled(2)
        assert await world.types_of("b", said) == []
        await world.stop()

    simulate(scenario)


def test_what_waits_for_a_generation_that_needs_no_step_is_woken_by_it():
    async def scenario():
        world = World(52)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        protected = {"op": "declare", "key": "default/mesh.item/a"}
        protected["body"] = {"value": {"target": "main", "size": 1}, "policy": {"protect": True}}
        new = {"op": "declare", "key": "default/mesh.item/b"}
        new["body"] = {"value": {"target": "main", "size": 1}, "depends_on": ["mesh.item/a"]}
        await world.submit(protected, new)
        await world.until_settled(2)
        await world.stop()

    simulate(scenario)


def test_what_is_missing_is_made_in_order_again():
    async def scenario():
        world = World(53)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.declare("b", 1, depends_on=["mesh.item/a"])
        await world.until_settled(30)
        await world.retire("a", deletion="retain")
        del world.server.objects["b"]
        world.controller.look("default/mesh.item/b")
        await world.until(lambda: world.reason("b") == "DependencyNotReady", 10, "waits")
        assert "b" not in world.server.objects
        await world.declare("a", 1)
        await world.until_settled(10)
        await world.stop()

    simulate(scenario)


def test_retiring_the_loser_of_a_conflict_leaves_the_winners_object_alone():
    async def scenario():
        world = World(54)
        await world.start()
        await world.declare_target()
        await world.declare("old", 5, item="shared")
        await world.declare("new", 6)
        await world.until_settled(20)
        await world.declare("new", 6, item="shared")
        await world.until(lambda: world.reason("new") == "Conflict", 10, "conflict")
        await world.retire("new")
        await world.until(lambda: "default/mesh.item/new" not in world.replica.state.entries, 10, "forgotten")
        assert world.server.objects == {"shared": 5}
        await world.stop()

    simulate(scenario)


def test_a_renamed_object_is_not_replaced_silently_and_retiring_removes_what_was_made():
    async def scenario():
        world = World(55)
        await world.start()
        await world.declare_target()
        await world.declare("a", 5, item="before")
        await world.until_settled(20)
        await world.declare("a", 5, item="after")
        await world.until(lambda: world.reason("a") == "Renamed", 10, "said")
        assert world.server.objects == {"before": 5}
        await world.declare("a", 7, item="before")
        await world.until_settled(10)
        await world.declare("a", 7, item="after")
        await world.until(lambda: world.reason("a") == "Renamed", 10, "said")
        await world.retire("a")
        await world.until(lambda: not world.server.objects, 10, "removed")
        await world.stop()

    simulate(scenario)


def test_a_name_that_was_never_made_may_be_corrected():
    async def scenario():
        world = World(56)
        await world.start()
        await world.declare_target()
        world.server.faults = Faults(refused=1.0)
        await world.declare("a", 5, item="wrong")
        await asyncio.sleep(5)
        await world.declare("a", 5, item="right")
        world.server.faults = Faults()
        await world.until_settled(10)
        assert world.server.objects == {"right": 5}
        await world.stop()

    simulate(scenario)


def test_a_foreign_object_that_may_not_be_taken_over_is_not_removed_either():
    async def scenario():
        world = World(57)
        world.server.objects = {"a": 5}
        await world.start()
        await world.declare_target()
        await world.declare("a", 0, policy={"adopt": "always"})
        await world.until(lambda: world.reason("a") == "NotAllowed", 10, "refused")
        await world.retire("a")
        await world.until(lambda: "default/mesh.item/a" not in world.replica.state.entries, 10, "forgotten")
        assert world.server.objects == {"a": 5}
        await world.stop()

    simulate(scenario)


def test_a_setting_may_have_a_sweep_interval_of_its_own():
    async def scenario():
        world = World(58)
        await world.start()
        await world.declare_target()
        await world.declare("often", 1, policy={"interval_s": 5})
        await world.declare("seldom", 1, policy={"interval_s": 600})
        await world.until_settled(20)
        for _ in range(3):
            world.server.objects["often"] = 9
            await world.until(lambda: world.server.objects["often"] == 1, 6, "soon repaired")
        world.server.objects["seldom"] = 9
        await asyncio.sleep(200)
        assert world.server.objects["seldom"] == 9
        await world.until_settled(600)
        assert world.status("seldom").next_at is not None
        await world.stop()

    simulate(scenario)


def test_a_setting_that_is_tried_again_says_when():
    async def scenario():
        world = World(59)
        await world.start()
        await world.declare_target()
        world.server.faults = Faults(refused=1.0)
        await world.declare("a", 1)
        await asyncio.sleep(20)
        assert world.status("a").next_at is not None
        world.server.faults = Faults()
        await world.until_settled(CONFIG.backoff_cap_s)
        assert world.status("a").next_at is None
        await world.stop()

    simulate(scenario)


def test_a_users_change_during_a_failing_pass_does_not_wait_for_its_pause():
    async def scenario():
        world = World(60)
        await world.start()
        await world.declare_target()
        world.server.faults = Faults(refused=1.0)
        await world.declare("a", 1)
        await asyncio.sleep(CONFIG.backoff_cap_s * 4)
        world.server.faults = Faults(refused=1.0, observing_s=2.0)
        await world.declare("b", 1)
        await asyncio.sleep(1)
        world.server.faults = Faults()
        await world.declare("b", 2)
        await world.declare("a", 2)
        await world.until_settled(4)
        await world.stop()

    simulate(scenario)

"""The whole loop in virtual time, against a server and a log that fail in every way, and a process that dies anywhere."""

from __future__ import annotations

import asyncio

import pytest

from reconcilers.contract import ExternalId, Hint, Plan
from tests.simulation.world import (
    CONFIG,
    LANDING_S,
    Faults,
    ResizeItem,
    World,
    check_intents,
    simulate,
)


def test_what_is_declared_comes_to_be_and_what_is_retired_goes():
    async def scenario():
        world = World(1)
        await world.start()
        await world.declare_target()
        for number in range(20):
            await world.declare(f"item{number}", number + 1)
        await world.until_settled(30)
        await world.declare("item3", 99)
        await world.until(lambda: world.server.objects["item3"] == 99, 5, "resized")
        await world.retire("item4")
        await world.until(lambda: "item4" not in world.server.objects, 5, "dropped")
        await world.until_settled(10)
        assert "default/mesh.item/item4" not in world.replica.state.entries
        assert not world.server.second_creates
        events = await world.events()
        check_intents(events)
        kinds = [e["event_type"] for e in events if e["setting"] == "default/mesh.item/item4"]
        wanted = "SettingAccepted ActionStarted ActionSucceeded Converged SettingRetired ActionStarted ActionSucceeded"
        assert kinds == [*wanted.split(), "SettingForgotten"]
        await world.stop()

    simulate(scenario)


def test_a_converged_world_is_left_alone():
    async def scenario():
        world = World(2)
        await world.start()
        await world.declare_target()
        for number in range(10):
            await world.declare(f"item{number}", 5)
        await world.until_settled(30)
        effects, events = len(world.server.effects), len(await world.events())
        await asyncio.sleep(3600)
        assert len(world.server.effects) == effects
        assert len(await world.events()) == events
        assert world.server.observations > 50
        await world.stop()

    simulate(scenario)


def test_drift_is_seen_by_the_sweep_said_and_repaired():
    async def scenario():
        world = World(3)
        await world.start()
        await world.declare_target()
        await world.declare("a", 7)
        await world.until_settled(30)
        world.server.objects["a"] = 1
        await world.until_settled(CONFIG.sweep_s * 1.2)
        events = [e for e in await world.events() if e["setting"] == "default/mesh.item/a"]
        detected = [e for e in events if e["event_type"] == "DriftDetected"]
        assert [e["details"]["drift"] for e in detected] == [[{"path": "/size", "desired": 7, "observed": 1}]]
        resolved = [e for e in events if e["event_type"] == "DriftResolved"]
        assert len(resolved) == 1
        started = [e for e in events if e["event_type"] == "ActionStarted"]
        assert started[-1]["correlation_id"] == detected[0]["correlation_id"] == resolved[0]["correlation_id"]
        await world.stop()

    simulate(scenario)


def test_a_hint_is_answered_at_once():
    async def scenario():
        world = World(4)
        await world.start()
        await world.declare_target()
        await world.declare("a", 7)
        await world.until_settled(30)
        del world.server.objects["a"]
        world.server.hints.put_nowait(Hint(ExternalId("mesh.item", "a"), "deleted"))
        await world.until_settled(1)
        await world.stop()

    simulate(scenario)


def test_drift_that_is_only_reported_is_never_repaired():
    async def scenario():
        world = World(5)
        await world.start()
        await world.declare_target()
        await world.declare("a", 7, policy={"drift": "report"})
        await world.until_settled(30)
        effects = len(world.server.effects)
        world.server.objects["a"] = 1
        await world.until(lambda: world.phase("a") == "Drifted", 100, "drift reported")
        await asyncio.sleep(1000)
        assert world.server.objects["a"] == 1
        assert len(world.server.effects) == effects
        assert sum(e["event_type"] == "DriftDetected" for e in await world.events()) == 1
        world.server.objects["a"] = 7
        await world.until(lambda: world.phase("a") == "Ready", 100, "drift gone")
        await world.stop()

    simulate(scenario)


def test_a_target_that_is_down_for_an_hour_is_not_hammered_and_then_everything_converges():
    async def scenario():
        world = World(6)
        world.server.up = False
        await world.start()
        await world.declare_target()
        for number in range(30):
            await world.declare(f"item{number}", 5)
        await world.until(lambda: world.phase("item7") == "Unknown", 10, "unknown")
        await asyncio.sleep(3600)
        before = len(await world.events())
        assert before < 100
        world.server.up = True
        await world.until_settled(CONFIG.backoff_cap_s + 20)
        downs = [e["event_type"] for e in await world.events() if e["event_type"].startswith("Target")]
        assert downs == ["TargetDown", "TargetUp"]
        await world.stop()

    simulate(scenario)


def test_a_silent_backend_keeps_no_other_target_waiting():
    async def scenario():
        world = World(7)
        await world.start()
        await world.declare_target("main")
        await world.declare("a", 1)
        await world.until_settled(30)
        world.server.faults = Faults(silent=1.0)
        await world.declare("b", 2)
        await world.until(lambda: world.phase("b") == "Unknown", 30, "unknown at the deadline")
        world.server.faults = Faults()
        await world.until_settled(CONFIG.backoff_cap_s + 30)
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


def test_a_users_change_goes_ahead_while_a_long_sweep_runs():
    async def scenario():
        world = World(8)
        await world.start()
        await world.declare_target()
        for number in range(200):
            await world.declare(f"item{number}", 5)
        await world.until_settled(60)
        world.server.faults = Faults(slow_s=4.0)
        loop = world.controller.loop(next(iter(world.controller._loops)))
        loop.sweep_soon()
        await asyncio.sleep(0.1)
        world.server.faults = Faults()
        started = world.clock.monotonic()
        await world.declare("item5", 6)
        await world.until(lambda: world.server.objects["item5"] == 6, 1, "acted during the sweep")
        assert world.clock.monotonic() - started < 1
        await world.stop()

    simulate(scenario)


def test_an_effect_of_unknown_outcome_is_waited_for_and_never_done_twice():
    async def scenario():
        world = World(9)
        await world.start()
        await world.declare_target()
        await world.declare("first", 1)
        await world.until_settled(30)
        world.server.faults = Faults(lost_reply=1.0)
        await world.declare("a", 7)
        await world.until(lambda: world.phase("a") == "Unknown", 5, "unknown")
        world.server.faults = Faults()
        await world.until_settled(LANDING_S + CONFIG.start_deadline_s + 5)
        assert world.server.second_creates == []
        assert [name for _, step, name in world.server.effects if step == "CreateItem"].count("a") == 1
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


def test_a_step_that_changes_nothing_is_reported_and_not_repeated_for_ever():
    async def scenario():
        world = World(10)
        world.planner = lambda external, desired, observed, now: Plan((ResizeItem(external, 3),))
        await world.start()
        await world.declare_target()
        await world.declare("a", 7)
        await world.until(lambda: world.reason("a") == "NotConverging", 60, "reported")
        effects = len(world.server.effects)
        await asyncio.sleep(3600)
        assert len(world.server.effects) - effects <= 3600 / (CONFIG.backoff_cap_s / 2) + 10
        await world.stop()

    simulate(scenario)


def test_an_object_that_existed_before_is_adopted_when_it_matches_and_reported_when_it_does_not():
    async def scenario():
        world = World(11)
        world.server.objects = {"same": 5, "other": 5, "taken": 5, "never": 5}
        await world.start()
        await world.declare_target()
        await world.declare("same", 5)
        await world.declare("other", 6)
        await world.declare("taken", 6, policy={"adopt": "always"})
        await world.declare("never", 5, policy={"adopt": "never"})
        await world.until(lambda: world.phase("same") == world.phase("taken") == "Ready", 10, "adopted")
        await world.until(lambda: world.phase("other") == world.phase("never") == "Stalled", 10, "reported")
        assert world.reason("other") == world.reason("never") == "AlreadyExists"
        assert world.server.objects == {"same": 5, "other": 5, "taken": 6, "never": 5}
        adopted = [e["setting"] for e in await world.events() if e["event_type"] == "Adopted"]
        assert sorted(adopted) == ["default/mesh.item/same", "default/mesh.item/taken"]
        await world.stop()

    simulate(scenario)


def test_retiring_what_was_never_ours_leaves_it_alone():
    async def scenario():
        world = World(12)
        world.server.objects = {"other": 5}
        await world.start()
        await world.declare_target()
        await world.declare("other", 6)
        await world.until(lambda: world.phase("other") == "Stalled", 10, "reported")
        await world.retire("other")
        await world.until(lambda: "default/mesh.item/other" not in world.replica.state.entries, 10, "forgotten")
        assert world.server.objects == {"other": 5}
        await world.stop()

    simulate(scenario)


def test_an_irreversible_step_needs_permission():
    async def scenario():
        world = World(13)
        await world.start()
        await world.declare_target()
        await world.declare("a", 5)
        await world.until_settled(10)
        await world.declare("a", 0)
        await world.until(lambda: world.reason("a") == "NotAllowed", 10, "refused")
        assert world.server.objects == {"a": 5}
        await world.declare("a", 0, policy={"allow": ["EmptyItem"]})
        await world.until_settled(10)
        await world.stop()

    simulate(scenario)


def test_of_two_settings_on_one_object_the_older_wins_until_it_goes():
    async def scenario():
        world = World(14)
        await world.start()
        await world.declare_target()
        await world.declare("old", 5, item="shared")
        await world.declare("new", 6, item="shared")
        await world.until(lambda: world.reason("new") == "Conflict", 10, "conflict")
        await world.until(lambda: world.phase("old") == "Ready", 10, "ready")
        assert world.server.objects == {"shared": 5}
        await world.retire("old", deletion="retain")
        await world.until(lambda: world.reason("new") in ("AlreadyExists", "Converged"), 20, "takes its turn")
        await world.stop()

    simulate(scenario)


def test_what_a_value_names_is_waited_for_when_somebody_declares_it_under_whatever_name():
    async def scenario():
        world = World(17)
        await world.start()
        await world.declare_target()
        user = {"op": "declare", "key": "default/mesh.item/user"}
        user["body"] = {"value": {"target": "main", "size": 1, "needs": ["mesh.item/thing", "mesh.item/of-others"]}}
        made = {"op": "declare", "key": "default/mesh.item/called-so"}
        made["body"] = {"value": {"target": "main", "size": 2, "item": "thing"}}
        await world.submit(user, made)
        await world.until_settled(20)
        assert [name for _, step, name in world.server.effects if step == "CreateItem"] == ["thing", "user"]
        await world.retire("called-so")
        await world.until(lambda: world.reason("called-so") == "WaitingForDependents", 10, "waits")
        await world.retire("user")
        await world.until(lambda: not world.server.objects, 20, "both dropped")
        assert [name for _, step, name in world.server.effects if step == "DropItem"] == ["user", "thing"]
        await world.stop()

    simulate(scenario)


def test_dependencies_order_creation_and_retirement():
    async def scenario():
        world = World(15)
        await world.start()
        await world.declare("c", 3, needs=("mesh.item/b",))
        await world.declare("b", 2, depends_on=["mesh.item/a"])
        await world.until(lambda: world.reason("b") in ("TargetNotFound", "DependencyNotReady"), 10, "waits")
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(20)
        created = [name for _, step, name in world.server.effects if step == "CreateItem"]
        assert created == ["a", "b", "c"]
        for name in "abc":
            await world.retire(name)
        await world.until(lambda: not world.server.objects, 20, "all dropped")
        dropped = [name for _, step, name in world.server.effects if step == "DropItem"]
        assert dropped == ["c", "b", "a"]
        await world.submit({"op": "retire", "key": "default/mesh.target/main"})
        await world.until(lambda: not world.replica.state.entries, 20, "target forgotten")
        await world.stop()

    simulate(scenario)


def test_a_dependency_cycle_is_named():
    async def scenario():
        world = World(16)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1, depends_on=["mesh.item/b"])
        await world.declare("b", 1, depends_on=["mesh.item/a"])
        await world.until(lambda: world.reason("a") == world.reason("b") == "DependencyCycle", 10, "named")
        await world.declare("b", 1)
        await world.until_settled(20)
        await world.stop()

    simulate(scenario)


def test_a_restarted_server_that_lost_everything_is_filled_again():
    async def scenario():
        world = World(17)
        await world.start()
        await world.declare_target()
        for number in range(5):
            await world.declare(f"item{number}", 5)
        await world.until_settled(10)
        world.server.restart(empty=True)
        world.server.hints.put_nowait(Hint(None, "run id changed"))
        await world.until_settled(5)
        await world.stop()

    simulate(scenario)


def test_a_wall_clock_that_jumps_disturbs_nothing():
    async def scenario():
        world = World(18)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(10)
        world.clock.jump_s = -1e6
        await world.declare("b", 2)
        await world.until_settled(10)
        world.clock.jump_s = 1e7
        await world.declare("c", 3)
        world.server.objects["a"] = 9
        await world.until_settled(100)
        await world.stop()

    simulate(scenario)


def test_a_change_that_is_superseded_while_it_waits_is_not_applied():
    async def scenario():
        world = World(19)
        await world.start()
        await world.declare_target()
        world.server.up = False
        await asyncio.sleep(1)
        for size in (1, 2, 3):
            await world.declare("a", size)
        world.server.up = True
        await world.until_settled(60)
        assert [step for _, step, name in world.server.effects if name == "a"] == ["CreateItem"]
        accepted = [e["revision"] for e in await world.events() if e["event_type"] == "SettingAccepted"]
        assert accepted == sorted(accepted)
        assert len(accepted) == 4
        await world.stop()

    simulate(scenario)


def test_a_paused_setting_is_left_alone_until_it_goes_on():
    async def scenario():
        world = World(20)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1, policy={"paused": True})
        await world.until(lambda: world.phase("a") == "Paused", 10, "paused")
        assert world.server.objects == {}
        await world.declare("a", 1)
        await world.until_settled(10)
        await world.stop()

    simulate(scenario)


@pytest.mark.parametrize("seed", range(25))
def test_under_any_mix_of_faults_everything_ends_as_declared_with_every_effect_recorded(seed):
    async def scenario():
        world = World(1000 + seed)
        print(f"seed {1000 + seed}")
        rng = world.rng
        await world.start()
        await world.declare_target()
        world.server.faults = Faults(unreachable=0.05, silent=0.02, refused=0.1, lost_reply=0.1, slow_s=0.5)
        world.log_faults.unavailable = 0.05
        world.log_faults.indeterminate = 0.02
        names = [f"item{number}" for number in range(12)]
        for _ in range(80):
            name = rng.choice(names)
            key = f"default/mesh.item/{name}"
            if rng.random() < 0.25 and key in world.replica.state.entries:
                await world.retire(name)
            else:
                await world.declare(name, rng.randrange(1, 100))
            if rng.random() < 0.1:
                world.server.objects[rng.choice(names)] = rng.randrange(1, 100)
            await asyncio.sleep(rng.random() * 3)
        world.server.faults = Faults()
        world.log_faults.unavailable = world.log_faults.indeterminate = 0.0
        foreign = set(world.server.objects) - set(world.declared())
        await asyncio.sleep(2 * CONFIG.backoff_cap_s + 2 * CONFIG.sweep_s)
        for name in foreign & set(world.server.objects) - set(world.declared()):
            del world.server.objects[name]  # put there by hand, never declared: not ours to remove
        for name in names:  # objects that appeared by hand before their declaration may wait for permission
            if world.reason(name) == "AlreadyExists":
                await world.declare(name, world.declared()[name], policy={"adopt": "always"})
        await world.until_settled(600)
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


@pytest.mark.parametrize("seed", range(12))
def test_a_process_that_dies_at_any_call_leaves_nothing_undone_or_done_twice(seed):
    async def scenario():
        world = World(2000 + seed)
        print(f"seed {2000 + seed}")
        rng = world.rng
        world.server.faults = Faults(lost_reply=0.1, refused=0.05)
        number = 0
        for life in range(12):
            await world.start(dies_at=rng.randrange(1, 60))
            await world.declare_target()
            while not world.life.dead.is_set() and number < 100:
                name = f"item{rng.randrange(15)}"
                if rng.random() < 0.2 and f"default/mesh.item/{name}" in world.replica.state.entries:
                    await world.retire(name)
                else:
                    await world.declare(name, rng.randrange(1, 1000))
                number += 1
                await asyncio.sleep(rng.random())
            await asyncio.sleep(rng.random() * 2)
            await world.kill()
            assert life < 12
        world.server.faults = Faults()
        await world.start()
        await world.until_settled(600)
        assert world.server.second_creates == []
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


@pytest.mark.parametrize("dies_at", range(1, 45))
def test_a_crash_after_every_single_call_is_recovered_from(dies_at):
    async def scenario():
        world = World(3000)
        await world.start(dies_at=dies_at)
        await world.declare_target()
        await world.declare("a", 1)
        await world.declare("b", 2)
        await asyncio.sleep(0.5)
        await world.declare("a", 3)
        await world.retire("b")
        await asyncio.sleep(2)
        await world.kill()
        await world.start()
        await world.until_settled(60)
        assert world.server.objects == {"a": 3}
        assert world.server.second_creates == []
        events = await world.events()
        check_intents(events)
        announced = [(e["event_type"], e["setting"], e["revision"]) for e in events if "Setting" in e["event_type"]]
        assert len(announced) == len(set(announced))
        assert {kind for kind, _, _ in announced} == {"SettingAccepted", "SettingRetired", "SettingForgotten"}
        await world.stop()

    simulate(scenario)

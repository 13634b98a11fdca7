"""What no backend shows is remembered in the status: with the step's end, across a crash, and never when in doubt."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from reconcilers.contract import CONVERGED, SUCCEEDED, Difference, Plan, Step
from tests.simulation import world as simulated
from tests.simulation.world import CONFIG, LANDING_S, CreateItem, Faults, ResizeItem, World, check_intents, simulate


class Silent(simulated.MortalServer):
    """Shows that an object is there, never its size; says which size it wrote."""

    async def observe(self, wanted: Any) -> Any:
        found = await super().observe(wanted)
        return dict.fromkeys(found, (None,))

    async def _apply(self, step: Step, fence: Any) -> Any:
        outcome = await super()._apply(step, fence)
        if outcome is SUCCEEDED and isinstance(step, CreateItem | ResizeItem):
            return replace(outcome, remember={"size": str(step.size)})
        return outcome


def recall(observed: Any, remembered: Any) -> Any:
    return None if observed is None else (remembered.get("size"),)


def plan(external: Any, desired: Any, observed: Any, now: float) -> Plan:
    if desired is None or observed is None:
        return simulated.plan(external, desired, observed, now)
    if observed == (str(desired),):
        return CONVERGED
    return Plan((ResizeItem(external, desired),), (Difference("/size", desired, None),))


def silent_world(seed: int, monkeypatch: Any) -> World:
    monkeypatch.setattr(simulated, "MortalServer", Silent)
    world = World(seed)
    world.planner, world.kind = plan, {"recall": recall}
    return world


def test_what_was_written_is_known_after_a_crash_and_not_written_again(monkeypatch):
    async def scenario():
        world = silent_world(70, monkeypatch)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        await world.declare("a", 2)
        await world.until_settled(30)
        assert dict(world.status("a").remembered) == {"size": "2"}
        effects = len(world.server.effects)
        await world.kill()
        await world.start()
        await world.until_settled(60)
        world.controller.loop(next(iter(world.controller._loops))).sweep_soon()
        await world.declare("b", 1)
        await world.until_settled(60)
        assert [name for _, _, name in world.server.effects[effects:]] == ["b"]
        check_intents(await world.events())
        await world.stop()

    simulate(scenario)


def test_what_may_have_been_written_is_written_again(monkeypatch):
    async def scenario():
        world = silent_world(71, monkeypatch)
        await world.start()
        await world.declare_target()
        await world.declare("a", 1)
        await world.until_settled(30)
        world.server.faults = Faults(lost_reply=1.0)
        await world.declare("a", 2)
        await world.until(lambda: world.phase("a") == "Unknown", 5, "in doubt")
        assert dict(world.status("a").remembered) == {"size": "1"}
        world.server.faults = Faults()
        await world.until_settled(LANDING_S + CONFIG.start_deadline_s + 60)
        assert dict(world.status("a").remembered) == {"size": "2"}
        assert world.server.objects == {"a": 2}
        await world.stop()

    simulate(scenario)

"""A plan is a promise: what is foreseen is what the controller then does, no more and no less; and foreseeing does nothing."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from controlplane.domain.errors import Reason, Refused
from controlplane.runtime.foreseen import Foreseen, Previewed, moved, parse_plan_id
from controlplane.runtime.preview import MOST_AT_ONCE, Preview, Proposal
from controlplane.runtime.secrets import EnvironmentSecrets
from reconcilers.contract import Plan
from tests.simulation.world import World, declare, simulate
from tests.simulation.world import plan as sim_plan

PREFIX = "default/mesh.item/"
RECORD = {"at": "2027-01-15T08:00:00.000000Z", "actor": "ann", "reason": "", "request_id": "proposed"}


def item(name: str, size: int, target: str = "main", **more: Any) -> dict[str, Any]:
    body = {part: more.pop(part) for part in ("policy", "depends_on", "labels") if part in more}
    return {"expected": None, **declare(PREFIX + name, {"target": target, "size": size, **more}, **body)}


def retire(name: str, deletion: str | None = None) -> dict[str, Any]:
    change = {"op": "retire", "key": PREFIX + name, "expected": None}
    return change if deletion is None else {**change, "deletion": deletion}


def preview_of(world: World) -> Preview:
    return Preview(
        world.replica.state,
        world.catalogue,
        world.statuses,
        world.controller,
        secrets=EnvironmentSecrets(Path("/nonexistent"), b"key"),
        clock=world.clock,
        metrics=world.metrics,
    )


async def plan(world: World, *changes: dict[str, Any]) -> Previewed:
    return await preview_of(world).foresee(Proposal("default", changes, None, RECORD))


def by_name(plan: Previewed) -> dict[str, Foreseen]:
    return {one.trial.key.rpartition("/")[2]: one for one in plan.settings}


def steps(plan: Previewed) -> dict[str, list[str]]:
    return {name: [step.name for step in one.steps] for name, one in by_name(plan).items() if one.steps}


def reasons(plan: Previewed) -> dict[str, str]:
    found = {name: one.refused or one.unknown for name, one in by_name(plan).items()}
    return {name: why.reason for name, why in found.items() if why}


# --- the promise -------------------------------------------------------------------------------------------------------

NAMES = "abcdef"


def some_policy(rng: random.Random) -> dict[str, Any]:
    policies: list[dict[str, Any]] = [
        {},
        {},
        {"paused": True},
        {"drift": "report"},
        {"adopt": "always"},
        {"adopt": "never"},
        {"allow": ["EmptyItem"]},
        {"deletion": "retain"},
    ]
    return rng.choice(policies)


def some_item(rng: random.Random, name: str) -> dict[str, Any]:
    more: dict[str, Any] = {}
    if rng.random() < 0.3:
        more["depends_on"] = [f"mesh.item/{rng.choice([n for n in NAMES + 'z' if n != name])}"]
    if rng.random() < 0.15:
        more["item"] = "shared"
    target = "elsewhere" if rng.random() < 0.1 else "main"
    return item(name, rng.choice([0, 1, 2, 3]), target, policy=some_policy(rng), **more)


def some_change(rng: random.Random, world: World, name: str) -> dict[str, Any] | None:
    entry = world.replica.state.entries.get(PREFIX + name)
    if entry is not None and rng.random() < 0.25:
        return retire(name, rng.choice([None, "delete"]))
    if entry is not None and rng.random() < 0.25:
        return {"op": "declare", "key": entry.key, "expected": None, "body": entry.body}
    change = some_item(rng, name)
    if entry is not None:  # a target can't be changed
        change["body"]["value"]["target"] = entry.body["value"]["target"]
    return change if name == NAMES[0] or rng.random() < 0.8 else None


def blocked(one: Foreseen, world: World) -> bool:
    """True when what it waits for hasn't come to pass."""
    for key in one.waits_for:
        entry = world.replica.state.entries.get(key)
        if entry is not None and (entry.retiring or world.phase(key.rpartition("/")[2]) != "Ready"):
            return True
    return False


@pytest.mark.parametrize("seed", range(60))
def test_what_is_foreseen_is_what_is_done(seed):
    async def scenario():
        rng = random.Random(seed)
        world = World(seed)
        world.server.objects = {name: 2 for name in NAMES if rng.random() < 0.2}
        await world.start()
        await world.declare_target()
        await world.submit(*(some_item(rng, name) for name in NAMES if rng.random() < 0.6))
        await asyncio.sleep(120)
        for name in list(world.server.objects):  # by hand, and nobody has seen it yet
            if rng.random() < 0.2:
                world.server.objects[name] = rng.choice([1, 2, 3])
        changes = [change for name in NAMES if (change := some_change(rng, world, name))]
        objects, done = dict(world.server.objects), len(world.server.effects)
        position, events = world.replica.state.position, len(await world.events())
        found = await plan(world, *changes)
        assert (world.server.objects, len(world.server.effects)) == (objects, done)
        assert (world.replica.state.position, len(await world.events())) == (position, events)
        await world.submit(*changes)
        await asyncio.sleep(300)
        effects: dict[str, list[str]] = {}
        for _, step, external in world.server.effects[done:]:
            effects.setdefault(external, []).append(step)
        compare(found, effects, world)
        await world.stop()

    simulate(scenario)


def compare(found: Previewed, effects: dict[str, list[str]], world: World) -> None:
    for name, one in by_name(found).items():
        value = one.trial.after.body["value"]
        external = value.get("item") or name
        if external == "shared":
            continue  # several share it: which of them an effect was for can't be told by its name
        if blocked(one, world):
            continue
        told = [step.name for step in one.steps]
        assert effects.get(external, []) == told, f"{name}: {one}\n{world.describe()}"
        why = one.refused or one.unknown
        if why is not None and why.reason != "Paused":
            assert world.reason(name) == why.reason, f"{name}: {one}\n{world.describe()}"


# --- single circumstances ----------------------------------------------------------------------------------------------


async def begun(seed: int = 1, **items: int) -> World:
    """A world with a target, and these items as declared."""
    world = World(seed)
    await world.start()
    await world.declare_target()
    for name, size in items.items():
        await world.declare(name, size)
    await world.until_settled(30)
    return world


def test_all_objects_of_a_target_are_observed_at_once():
    async def scenario():
        world = await begun(a=1, b=1)
        observations = world.server.observations
        found = await plan(world, item("a", 2), item("b", 1), item("c", 3))
        assert steps(found) == {"a": ["ResizeItem"], "c": ["CreateItem"]}
        assert world.server.observations == observations + 1
        assert found.document()["unchanged"] == [PREFIX + "b"]
        await world.stop()

    simulate(scenario)


def test_what_depends_on_something_new_is_foreseen_and_says_what_comes_first():
    async def scenario():
        world = await begun(a=1)
        found = await plan(world, item("b", 1, depends_on=["mesh.item/a", "mesh.item/c"]), item("c", 1))
        assert steps(found) == {"b": ["CreateItem"], "c": ["CreateItem"]}
        assert by_name(found)["b"].waits_for == (PREFIX + "c",)
        assert found.document()["steps"][0]["waits_for"] == [PREFIX + "c"]
        await world.stop()

    simulate(scenario)


def test_what_keeps_the_controller_from_acting_is_said_with_its_reason():
    async def scenario():
        world = await begun(a=1, b=1, c=1)
        await world.declare("under", 1, depends_on=["mesh.item/c"])
        await world.until_settled(30)
        world.server.objects["there"] = 5
        found = await plan(
            world,
            item("a", 0),
            item("b", 1, policy={"paused": True}),
            item("there", 1),
            item("again", 1, item="a"),
            item("lonely", 1, depends_on=["mesh.item/nobody"]),
            item("ring", 1, depends_on=["mesh.item/gnir"]),
            item("gnir", 1, depends_on=["mesh.item/ring"]),
            item("lost", 1, "nowhere"),
            retire("c"),
        )
        assert steps(found) == {}
        assert reasons(found) == {
            "a": "NotAllowed",
            "b": "Paused",
            "there": "AlreadyExists",
            "again": "Conflict",
            "lonely": "DependencyNotReady",
            "ring": "DependencyCycle",
            "gnir": "DependencyCycle",
            "lost": "TargetNotFound",
            "c": "WaitingForDependents",
        }
        document = found.document()
        assert [one["setting"] for one in document["unknown"]] == [PREFIX + n for n in ("lonely", "lost", "c")]
        assert "EmptyItem" in document["refused"][0]["message"]
        await world.stop()

    simulate(scenario)


def test_permission_in_the_proposal_makes_irreversible_steps_part_of_it():
    async def scenario():
        world = await begun(a=1)
        found = await plan(world, item("a", 0, policy={"allow": ["EmptyItem"]}))
        assert [(s["step"], s["irreversible"]) for s in found.document()["steps"]] == [
            ("EmptyItem", True),
            ("ResizeItem", False),
        ]
        await world.stop()

    simulate(scenario)


def test_dependents_that_go_too_are_waited_for():
    async def scenario():
        world = await begun(a=1)
        await world.declare("b", 1, depends_on=["mesh.item/a"])
        await world.until_settled(30)
        found = await plan(world, retire("a"), retire("b"))
        assert steps(found) == {"a": ["DropItem"], "b": ["DropItem"]}
        assert by_name(found)["a"].waits_for == (PREFIX + "b",)
        kept = await plan(world, retire("b", "retain"))
        assert (steps(kept), reasons(kept), by_name(kept)["b"].trial.outcome) == ({}, {}, "retired")
        await world.stop()

    simulate(scenario)


def test_a_target_that_is_made_or_moved_by_the_proposal_leaves_its_settings_unknown():
    async def scenario():
        world = await begun(a=1)
        observations = world.server.observations
        new = declare("default/mesh.target/new", {"url": "sim:new"})
        moved = declare("default/mesh.target/main", {"url": "sim:moved"})
        found = await plan(world, new, moved, item("a", 2), item("b", 1, "new"))
        assert reasons(found) == {"a": "TargetNotConnected", "b": "TargetNotConnected"}
        assert [result["outcome"] for result in found.document()["results"]] == [
            "created",
            "updated",
            "updated",
            "created",
        ]
        assert world.server.observations == observations
        same = await plan(world, declare("default/mesh.target/main", {"url": "sim:"}), item("a", 2))
        assert steps(same) == {"a": ["ResizeItem"]}
        await world.stop()

    simulate(scenario)


def test_without_an_answer_nothing_is_foreseen():
    async def scenario():
        world = await begun(a=1)
        world.server.faults.silent = 1.0
        silent = await plan(world, item("a", 2))
        assert (steps(silent), reasons(silent)) == ({}, {"a": "Timeout"})
        world.server.up = False
        world.server.faults.silent = 0.0
        assert reasons(await plan(world, item("a", 2))) == {"a": "Unreachable"}
        await world.until(lambda: world.phase("a") == "Unknown", 120, "noticed")
        assert reasons(await plan(world, item("a", 2))) == {"a": "Unreachable"}
        await world.stop()

    simulate(scenario)


def test_an_object_that_would_take_the_place_of_another_is_refused_until_that_is_gone():
    async def scenario():
        world = await begun(a=1)
        there = await plan(world, item("a", 1, item="other"))
        assert reasons(there) == {"a": "Renamed"}
        del world.server.objects["a"]
        gone = await plan(world, item("a", 1, item="other"))
        assert (steps(gone), by_name(gone)["a"].steps[0].external.name) == ({"a": ["CreateItem"]}, "other")
        await world.stop()

    simulate(scenario)


def test_a_fault_in_a_planner_refuses_its_setting_only():
    async def scenario():
        world = World(1)

        def planner(external: Any, desired: Any, observed: Any, now: float) -> Plan:
            if external.name == "b":
                msg = "bug"
                raise ValueError(msg)
            return sim_plan(external, desired, observed, now)

        world.planner = planner
        await world.start()
        await world.declare_target()
        await world.until_settled(30)
        found = await plan(world, item("a", 1), item("b", 1))
        assert (steps(found), reasons(found)) == ({"a": ["CreateItem"]}, {"b": "InternalError"})
        await world.stop()

    simulate(scenario)


def test_more_plans_at_once_than_there_is_room_for_are_refused():
    async def scenario():
        world = await begun(a=1)
        world.server.faults.silent = 1.0
        one = preview_of(world)
        proposal = Proposal("default", [item("a", 2)], None, RECORD)
        results = await asyncio.gather(
            *(one.foresee(proposal) for _ in range(MOST_AT_ONCE + 2)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, Refused)]
        assert [result.reason for result in refused] == [Reason.TOO_MANY_REQUESTS] * 2
        await world.stop()

    simulate(scenario)


# --- identity ----------------------------------------------------------------------------------------------------------


def test_the_same_proposal_in_the_same_world_is_the_same_plan():
    async def scenario():
        world = await begun(a=1, b=1)
        changes = [item("a", 2), item("c", 1)]
        first = await plan(world, *changes)
        await world.declare("elsewhere", 1)
        await world.until_settled(30)
        again = await plan(world, *reversed(changes))
        assert first.plan_id.same(again.plan_id)
        assert first.plan_id.same(parse_plan_id(str(first.plan_id)))
        await world.stop()

    simulate(scenario)


@pytest.mark.parametrize(
    ("what", "path", "told"),
    [
        ("document", "/settings", "another document"),
        ("setting", PREFIX + "a", "declared since, at revision"),
        ("needed", PREFIX + "b", "declared since, at revision"),
        ("target", "default/mesh.target/main", "declared since, at revision"),
        ("object", PREFIX + "a", "now to be done: DropItem a"),
        ("observed", PREFIX + "a", "now to be done: ResizeItem a"),
        ("gone", PREFIX + "a", "is unknown now: connection refused"),
    ],
)
def test_what_moved_since_a_plan_is_told(what, path, told):
    async def scenario():
        world = await begun(a=1, b=1)
        change = item("a", 2, depends_on=["mesh.item/b"])
        before = await plan(world, change)
        match what:
            case "document":
                change = item("a", 3, depends_on=["mesh.item/b"])
            case "setting":
                await world.declare("a", 1, labels={"x": "y"})
            case "needed":
                await world.declare("b", 1, labels={"x": "y"})
            case "target":
                await world.submit(declare("default/mesh.target/main", {"url": "sim:"}, labels={"x": "y"}))
            case "object":
                before = await plan(world, retire("a", "retain"))
                change = retire("a")
            case "observed":
                world.server.objects["a"] = 7
            case "gone":
                world.server.up = False
        faults = moved(before.plan_id, await plan(world, change))
        assert [(fault.path.removeprefix("/") if fault.path != "/settings" else fault.path) for fault in faults][
            :1
        ] == [path]
        assert told in faults[0].message
        await world.stop()

    simulate(scenario)


@pytest.mark.parametrize("text", ["", "x", "1-2-3-4", "-".join(["1", *["g" * 16] * 3]), "1" * 30 + "-a" * 3])
def test_what_is_no_plan_id_is_refused(text):
    with pytest.raises(Refused) as refused:
        parse_plan_id(text)
    assert refused.value.reason is Reason.MALFORMED


# --- how much is touched -----------------------------------------------------------------------------------------------


def affected(plan: Previewed) -> dict[str, Any]:
    return {
        f"{step['setting'].rpartition('/')[2]} {step['step']}": (step.get("affects"), step.get("at_least", False))
        for step in plan.told["steps"]
    }


def test_a_plan_says_how_much_each_step_touches_and_is_the_same_plan_when_that_changes():
    async def scenario():
        world = World(61)
        await world.start()
        await world.declare_target()
        await world.declare("a", 7)
        await world.declare("b", 500)
        await world.until_settled(30)
        before = await plan(world, item("new", 1), item("a", 0, policy={"allow": ["EmptyItem"]}), retire("b"))
        assert affected(before) == {
            "new CreateItem": (None, False),
            "a EmptyItem": ({"units": 7}, False),
            "a ResizeItem": ({"units": 7}, False),
            "b DropItem": ({"units": 500}, True),
        }
        world.server.objects["b"] = 600  # nobody's business but its own: it goes whatever its size
        after = await plan(world, item("new", 1), item("a", 0, policy={"allow": ["EmptyItem"]}), retire("b"))
        assert affected(after)["b DropItem"] == ({"units": 600}, True)
        assert after.plan_id == before.plan_id
        await world.stop()

    simulate(scenario)


def test_a_plan_is_answered_also_when_nobody_can_tell_how_much_it_touches():
    async def scenario():
        world = World(62)
        await world.start()
        await world.declare_target()
        await world.declare("a", 7)
        await world.until_settled(30)
        world.server.bugs.add("weigh")
        assert affected(await plan(world, item("a", 8))) == {"a ResizeItem": (None, False)}
        await world.stop()

    simulate(scenario)

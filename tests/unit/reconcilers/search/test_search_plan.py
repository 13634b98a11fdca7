"""The decisions of a migration, as a table of what the cluster shows → the next step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from reconcilers.contract import ExternalId
from reconcilers.search.definition import Body, definition
from reconcilers.search.generations import ALLOCATION_SETTING, WAIT_SETTING, WRITE_BLOCK, Generation, Mark
from reconcilers.search.model import Copy, Feed, ObservedIndex, Verdict
from reconcilers.search.plan import plan_index
from schemas.search import Index

ID = ExternalId("search.index", "shop")
NEW = {"properties": {"n": {"type": "long"}}}
OLD = {"properties": {"n": {"type": "integer"}}}
HELD = {WAIT_SETTING: "all", ALLOCATION_SETTING: "none"}
REFUSAL = "cannot be changed from type [integer] to [long]"
LISTED = Feed(10, is_listed=True)
COMPARED = Feed(10, is_listed=True, compared=1, is_compared=True)
FED = replace(COMPARED, passes=1, last_s=0.1)
SLOW = replace(COMPARED, passes=2, last_s=9.0, shrinks=False)


def declared(**more: Any) -> Any:
    value = {"target": "main", "mappings": NEW, "settings": {"number_of_shards": "1"}, **more}
    return definition("shop", Index.model_validate(value))


DIGEST = declared().digest


def generation(number: int, mappings: Any, mark: Mark, *, alias: bool = False, **settings: Any) -> Generation:
    held = {"index.number_of_shards": "1", **settings}
    return Generation(f"shop-g{number}-0000000{number}", number, held, mappings, {"shop": {}} if alias else {}, mark)


G1 = generation(1, OLD, Mark("serving"), alias=True)


def building(phase: str, **more: Any) -> Generation:
    settings = more.pop("settings", {})
    return generation(2, NEW, Mark(phase, DIGEST, G1.name, **more), **settings)


def seen(serving: Generation | None, *others: Generation, **more: Any) -> ObservedIndex:
    ones = tuple(sorted([*([serving] if serving else []), *others], key=lambda one: one.number))
    desired = declared()
    return ObservedIndex(serving, ones, desired.body, Verdict(REFUSAL), **more)


def next_of(observed: ObservedIndex, desired: Any = None, now: float = 0.0) -> list[str]:
    return [step.name for step in plan_index(ID, desired or declared(), observed, now).steps]


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (seen(G1), "CreateGeneration"),
        (seen(G1, building("copying")), "StartCopy"),
        (seen(G1, building("copying", task="t"), copy=Copy("lost")), "StartCopy"),
        (seen(G1, building("copying", task="t"), copy=Copy("running", 35, 100)), "RecordProgress"),
        (seen(G1, building("copying", task="t", percent=30), copy=Copy("running", 35, 100)), "ListDocuments"),
        (seen(G1, building("copying", task="t"), copy=Copy("failed", message="no")), "MarkGeneration"),
        (seen(G1, building("copying", task="t"), copy=Copy("done")), "MarkGeneration"),
        (seen(G1, building("feeding")), "ListDocuments"),
        (seen(G1, building("feeding"), feed=LISTED), "CompareDocuments"),
        (seen(G1, building("feeding"), feed=COMPARED), "FeedChanges"),
        (seen(G1, building("feeding"), feed=FED), "VerifyGeneration"),
        (seen(G1, building("verified")), "ListDocuments"),
        (seen(G1, building("verified"), feed=FED), "SwitchAlias"),
        (seen(G1, building("verified", settings=HELD), feed=FED), "ReleaseHold"),
        (seen(G1, building("copying", settings=HELD)), "ReleaseHold"),
        (seen(G1, generation(2, NEW, Mark("copying", "another", G1.name))), "DropGeneration"),
        (seen(generation(2, OLD, Mark("serving"), alias=True), building("feeding")), "DropGeneration"),
    ],
)
def test_the_next_step_before_the_alias_moves(observed: ObservedIndex, expected: str) -> None:
    assert next_of(observed) == [expected]


def moved(**settings: Any) -> Generation:
    return generation(2, NEW, Mark("verified", DIGEST, G1.name), alias=True, **settings)


OPEN = replace(G1, aliases={})
BLOCKED = replace(OPEN, settings={**G1.settings, WRITE_BLOCK: "true"})


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (OPEN, moved(**HELD), "FinishSwitch"),
        (BLOCKED, moved(**HELD), "FinishSwitch"),
        (OPEN, moved(), "FinishSwitch"),
        (BLOCKED, moved(), "RetireGeneration"),
        (None, moved(**HELD), "ReleaseHold"),
        (None, moved(), "RetireGeneration"),
    ],
)
def test_the_next_step_after_the_alias_moved(old: Generation | None, new: Generation, expected: str) -> None:
    others = () if old is None else (old,)
    assert next_of(seen(new, *others)) == [expected]


def test_writers_are_never_held_longer_than_declared() -> None:
    for desired in (declared(), declared(migration={"hold_s": 8})):
        assert next_of(seen(G1, building("verified"), feed=SLOW), desired) != ["SwitchAlias"]
    assert next_of(seen(G1, building("verified"), feed=SLOW), declared(migration={"hold_s": 20})) == ["SwitchAlias"]


def test_a_finished_hold_gives_back_what_is_declared() -> None:
    desired = declared(settings={"number_of_shards": "1", "refresh_interval": "7s", "number_of_replicas": "1"})
    observed = replace(seen(G1, building("verified"), feed=FED), canonical=desired.body)
    mark = replace(observed.generations[1].mark, digest=desired.digest)
    observed = replace(observed, generations=(G1, replace(observed.generations[1], mark=mark)))
    (step,) = plan_index(ID, desired, observed, 0.0).steps
    assert step.restore["index.refresh_interval"] == "7s"
    assert step.restore["index.number_of_replicas"] == "1"
    assert step.restore[WAIT_SETTING] is None
    assert step.restore["index.gc_deletes"] is None


@pytest.mark.parametrize(
    ("serving", "desired", "reason"),
    [
        (G1, declared(migration={"mode": "manual"}), "MigrationNeeded"),
        (replace(G1, mark=Mark(aborted=DIGEST)), declared(), "MigrationAborted"),
        (replace(G1, mark=Mark(pinned=DIGEST)), declared(), "RolledBack"),
        (replace(G1, mappings={**OLD, "_source": {"enabled": False}}), declared(), "SourceIncomplete"),
        (replace(G1, name="shop", number=0), declared(), "NotAnAlias"),
    ],
)
def test_what_keeps_a_migration_from_beginning(serving: Generation, desired: Any, reason: str) -> None:
    blocked = plan_index(ID, desired, seen(serving), 0.0).blocked
    assert blocked is not None
    assert blocked.reason == reason


def test_an_approved_manual_migration_begins() -> None:
    approved = replace(G1, mark=Mark(approved=DIGEST))
    assert next_of(seen(approved), declared(migration={"mode": "manual"})) == ["CreateGeneration"]


def test_every_step_of_a_long_phase_is_another_plan() -> None:
    """Equal plans that succeed again and again are taken for going round in circles."""
    for phase, feeds in {
        "feeding": [Feed(n) for n in (0, 500, 900)] + [replace(LISTED, compared=n) for n in (0, 1, 2)],
    }.items():
        steps = [plan_index(ID, declared(), seen(G1, building(phase), feed=feed), 0.0).steps for feed in feeds]
        assert len(set(steps)) == len(steps)


def test_old_generations_are_kept_for_their_time() -> None:
    old = replace(BLOCKED, mark=Mark("old", since=1_000.0))
    serving = generation(2, NEW, Mark("serving", DIGEST, G1.name), alias=True)
    kept = plan_index(ID, declared(migration={"keep_old_s": 60}), seen(serving, old), 1_010.0)
    assert (kept.steps, kept.converged) == ((), True)
    assert kept.requeue_after_s == pytest.approx(50.1)
    assert next_of(seen(serving, old), declared(migration={"keep_old_s": 60}), 1_061.0) == ["DropGeneration"]


def test_what_is_left_of_an_index_that_nothing_serves_is_not_touched() -> None:
    plan = plan_index(ID, declared(), seen(None, building("feeding")), 0.0)
    assert plan.steps == ()
    assert plan.blocked is not None
    assert plan.blocked.reason == "GenerationLost"


def test_a_rollback_makes_a_new_generation_of_the_old_definition() -> None:
    old = replace(BLOCKED, mark=Mark("old", since=1.0))
    serving = generation(2, NEW, Mark("serving", DIGEST, G1.name, rollback=G1.name), alias=True)
    (step,) = plan_index(ID, declared(), seen(serving, old), 0.0).steps
    assert step.name == "CreateGeneration"
    assert step.body.mappings == OLD
    assert step.mark.pinned == DIGEST
    assert not isinstance(step.body, Body) or WRITE_BLOCK not in step.body.settings

"""Laws of the fold, over random logs."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.fold import REMEMBERED_OFFSETS, State, Verdict, fold, judge, replay
from controlplane.domain.history import history
from controlplane.domain.requests import as_request, read
from controlplane.log.codec import encode

KEYS = [f"default/cache.namespace/{letter}" for letter in "abc"]
VALUES = st.fixed_dictionaries({"n": st.sampled_from([0, 1, 2, True, False, 1.0, None])})
POLICIES = st.sampled_from([{}, {"paused": True}, {"protect": True}, {"protect": False}])
LABELS = st.sampled_from([{}, {"team": "shop"}])
EXPECTED = st.one_of(st.none(), st.integers(0, 40))
BODIES = st.fixed_dictionaries({"value": VALUES, "labels": LABELS, "depends_on": st.just([]), "policy": POLICIES})
CHANGES = st.one_of(
    st.fixed_dictionaries(
        {"op": st.just("declare"), "key": st.sampled_from(KEYS), "expected": EXPECTED, "body": BODIES}
    ),
    st.fixed_dictionaries(
        {
            "op": st.just("retire"),
            "key": st.sampled_from(KEYS),
            "expected": EXPECTED,
            "deletion": st.sampled_from([None, "retain", "delete"]),
        }
    ),
    st.fixed_dictionaries({"op": st.just("forget"), "key": st.sampled_from(KEYS), "expected": EXPECTED}),
)
RECORDS = st.fixed_dictionaries(
    {
        "v": st.just(1),
        "request_id": st.integers(0, 30).map(lambda n: f"request-{n}"),
        "actor": st.sampled_from(["ann", "bob"]),
        "at": st.just("2026-01-31T12:00:00.000000Z"),
        "reason": st.just(""),
        "changes": st.lists(CHANGES, min_size=1, max_size=3),
    }
)
HOLES = st.one_of(st.just(1), st.sampled_from([1, 2, 7, 900, REMEMBERED_OFFSETS - 1, REMEMBERED_OFFSETS]))
LOGS = st.lists(st.tuples(HOLES, RECORDS), max_size=40)


def placed(log: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """Offsets with holes; `expected` is drawn small, so half of the time it is made to fit."""
    offset, out = -1, []
    for hole, record in log:
        offset += hole
        out.append((offset, record))
    return out


def fitted(log: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, dict[str, Any]]]:
    """The same log with each second `expected` being the right one, so that much is accepted."""
    state, out = State(), []
    for offset, record in placed(log):
        changes = [
            {**change, "expected": state.revision_of(change["key"])}
            if change["expected"] in range(0, 40, 2)
            else change
            for change in record["changes"]
        ]
        out.append((offset, {**record, "changes": changes}))
        fold(state, offset, as_request(*out[-1]))
    return out


def folded(records: list[tuple[int, dict[str, Any]]]) -> tuple[State, list[Verdict]]:
    state = State()
    return state, [fold(state, offset, as_request(offset, record)) for offset, record in records]


@given(LOGS.map(fitted), st.data())
def test_replicas_that_stop_anywhere_and_go_on_reach_the_same_state_and_verdicts(records, data):
    state, verdicts = folded(records)
    cut = data.draw(st.integers(0, len(records)))
    first, early = folded(records[:cut])
    other = copy.deepcopy(first)
    late = [fold(other, offset, read(offset, encode(record))) for offset, record in records[cut:]]
    assert other == state
    assert early + late == verdicts
    bare = State()
    for offset, record in records:
        replay(bare, offset, as_request(offset, record))
    assert bare == state


@given(LOGS.map(fitted))
def test_revisions_of_a_key_rise_and_each_names_the_record_that_made_it(records):
    state, verdicts = folded(records)
    by_offset = dict(records)
    accepted = {verdict.offset for verdict in verdicts if verdict.accepted}
    for key, revisions in state.history.items():
        assert list(revisions) == sorted(set(revisions))
        for revision in revisions:
            assert revision - 1 in accepted
            assert any(change["key"] == key for change in by_offset[revision - 1]["changes"])
        entry = state.entries.get(key)
        assert entry is None or entry.revision == revisions[-1]


@given(LOGS.map(fitted))
def test_a_stale_expectation_is_always_refused_and_a_refused_request_changes_nothing(records):
    state = State()
    for offset, record in records:
        before = {key: state.revision_of(key) for key in KEYS}
        entries, known = dict(state.entries), {*state.verdicts.older, *state.verdicts.recent}
        verdict = fold(state, offset, as_request(offset, record))
        if record["request_id"] in known and verdict.offset != offset:
            continue
        for change in record["changes"]:
            if change["expected"] not in (None, before[change["key"]]):
                assert not verdict.accepted
        if not verdict.accepted:
            assert state.entries == entries
            assert verdict.outcomes == ()
        else:
            assert [outcome.key for outcome in verdict.outcomes] == [change["key"] for change in record["changes"]]


@given(LOGS.map(fitted))
def test_judging_beforehand_says_what_the_fold_then_says(records):
    state = State()
    for offset, record in records:
        foreseen = judge(state, as_request(offset, record).changes)
        verdict = fold(state, offset, as_request(offset, record))
        if verdict.offset == offset:
            assert verdict.refusals == foreseen


@given(LOGS.map(fitted))
def test_a_repetition_within_the_window_gets_the_first_verdict_and_later_it_is_judged_anew(records):
    state, judged = State(), {}
    for offset, record in records:
        entries, first = dict(state.entries), judged.get(record["request_id"])
        verdict = fold(state, offset, as_request(offset, record))
        if first is not None and offset - first.offset < REMEMBERED_OFFSETS:
            assert verdict == first
            assert state.entries == entries
        else:
            assert verdict.offset == offset
            judged[record["request_id"]] = verdict


@given(LOGS.map(fitted))
def test_a_request_of_one_change_is_judged_like_one_of_many(records):
    """Single changes take a shorter way through the fold: with an empty-handed companion they take the long one."""
    short, long = State(), State()
    for offset, record in records:
        single = {**record, "changes": record["changes"][:1], "request_id": f"only-{offset}"}
        companion = {
            "op": "declare",
            "key": "default/cache.namespace/companion",
            "expected": None,
            "body": {"value": {}, "labels": {}, "depends_on": [], "policy": {}},
        }
        one = fold(short, offset, as_request(offset, single))
        both = fold(long, offset, as_request(offset, {**single, "changes": [*single["changes"], companion]}))
        assert (one.outcomes, one.refusals) == (both.outcomes[:1], both.refusals)
    assert short.entries == {key: entry for key, entry in long.entries.items() if not key.endswith("companion")}


@given(LOGS.map(fitted))
def test_the_generation_is_the_number_of_values_and_policies_the_key_has_had(records):
    state, _ = folded(records)
    by_offset = dict(records)
    for key, revisions in state.history.items():
        rows = history(key, [(revision - 1, by_offset[revision - 1]) for revision in revisions])
        assert [row["revision"] for row in rows] == list(revisions)
        entry = state.entries.get(key)
        if entry is None:
            assert rows[-1]["value"] is None
            continue
        assert (rows[-1]["generation"], rows[-1]["value"]) == (entry.generation, entry.body["value"])
        since = next(index for index, row in enumerate(rows) if row["revision"] == entry.created_revision)
        moved = [
            row for row in rows[since + 1 :] if any(path.startswith(("/value", "/policy")) for path in row["changed"])
        ]
        assert entry.generation == 1 + len(moved)

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.answers import Selection, declaration, is_ready, labels_of, page, phase, runs, select, setting
from controlplane.domain.errors import Refused
from controlplane.domain.fold import Entry
from controlplane.domain.status import KeyStatus, converged
from schemas.setting import InfrastructureSetting, Phase


def entry(name: str = "a", generation: int = 1, *, retiring: bool = False, **body: Any) -> Entry:
    whole = {"value": {"ttl_s": 5}, "labels": {}, "depends_on": [], "policy": {}} | body
    key = f"default/cache.namespace/{name}"
    return Entry(key, whole, generation, 1, 1, "t0", "t1", retiring, None, "ann", "", "r")


def ready(generation: int, *, retiring: bool = False) -> KeyStatus:
    return converged(KeyStatus("k", observed_generation=generation, retiring=retiring), 0.0, "external")


def test_an_answer_is_a_setting_of_the_schema() -> None:
    made = InfrastructureSetting.model_validate(setting(entry(), ready(1)))
    assert (made.setting_type, made.name, made.status.phase) == ("cache.namespace", "a", Phase.READY)


@pytest.mark.parametrize(
    ("of", "status", "shown"),
    [
        (entry(), None, Phase.PENDING),
        (entry(), ready(1), Phase.READY),
        (entry(generation=2), ready(1), Phase.PENDING),
        (entry(), ready(2), Phase.READY),
        (entry(retiring=True), ready(1), Phase.RETIRING),
        (entry(), ready(1, retiring=True), Phase.PENDING),
    ],
)
def test_a_phase_is_shown_only_while_it_speaks_of_this_generation(
    of: Entry, status: KeyStatus | None, shown: Phase
) -> None:
    assert phase(of, status) is shown


def test_ready_means_this_generation_or_a_later_one() -> None:
    assert [is_ready(status, 2) for status in (None, ready(1), ready(2), ready(3))] == [False, False, True, True]


def test_a_declaration_leaves_out_what_is_empty() -> None:
    assert declaration(entry()) == {"type": "cache.namespace", "name": "a", "value": {"ttl_s": 5}}
    assert declaration(entry(labels={"a": "b"}))["labels"] == {"a": "b"}


def test_other_tenants_are_never_selected() -> None:
    assert select([entry()], {}, Selection("other")) == []
    assert select([entry()], {}, Selection("defaul")) == []


@given(st.sets(st.text("abcXYZ019._-", min_size=1, max_size=6), max_size=30), st.integers(1, 7))
def test_pages_together_are_the_whole_list(names: set[str], limit: int) -> None:
    chosen = Selection("default")
    entries = select([entry(f"n{name}") for name in names], {}, chosen)
    found: list[Entry] = []
    after: str | None = ""
    while after is not None:
        part, after = page(reversed(entries), {}, chosen, after=after, limit=limit)
        found += part
    assert found == entries
    assert {made.key for made in found} == {f"default/cache.namespace/n{name}" for name in names}


@given(st.sets(st.integers(0, 500)).map(sorted))
def test_runs_cover_every_offset_once_and_in_order(offsets: list[int]) -> None:
    covered = [offset for first, last in runs(offsets) for offset in range(first, last + 1)]
    assert [offset for offset in covered if offset in set(offsets)] == offsets
    assert len(covered) == len(set(covered))


def test_labels_are_pairs_one_by_one_or_joined() -> None:
    assert labels_of(["a=b,c=d", "e=f=g", "h="]) == {"a": "b", "c": "d", "e": "f=g", "h": ""}
    for wrong in ("a", "=b", ""):
        with pytest.raises(Refused):
            labels_of([wrong])

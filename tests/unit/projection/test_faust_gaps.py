"""How far a group has come on a compacted topic: as Faust itself finds, without a list of all that is gone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from faust.transport.consumer import Consumer
from faust.types import TP
from hypothesis import given
from hypothesis import strategies as st
from intervaltree import IntervalTree

from controlplane.log.kafka_address import Address
from controlplane.projection.faust_app import FaustApp

TOPIC = TP("coreplane.status", 0)
KINDS = st.lists(st.sampled_from(["acknowledged", "unacknowledged", "gone", "gone"]), max_size=40)


def consumer(kinds: list[str], first: int, committed: int | None) -> Any:
    """One that has read so far, offset by offset."""
    acked = [first + n for n, kind in enumerate(kinds) if kind == "acknowledged"]
    gaps = IntervalTree.from_tuples((first + n, first + n + 1) for n, kind in enumerate(kinds) if kind == "gone")
    gaps.merge_overlaps(strict=False)
    return made(acked, gaps, committed)


def made(acked: list[int], gaps: IntervalTree, committed: int | None) -> Any:
    return SimpleNamespace(
        _acked={TOPIC: acked},
        _acked_index={TOPIC: set(acked)},
        _gap={TOPIC: gaps},
        _committed_offset={TOPIC: committed},
    )


def ours() -> Any:
    app = FaustApp(Address(("nowhere:9092",)), "group", _never)
    try:
        return app._made().transport.Consumer
    finally:
        app._folder.cleanup()


async def _never(_: Any) -> None:
    raise AssertionError


OURS = ours()


@given(KINDS, st.integers(0, 50), st.none() | st.integers(0, 60), st.data())
def test_it_is_what_faust_finds_also_when_more_is_acknowledged_later(kinds, first, committed, data):
    theirs, mine = consumer(kinds, first, committed), consumer(kinds, first, committed)
    found = Consumer._new_offset(theirs, TOPIC)
    assert OURS._new_offset(mine, TOPIC) == found
    late = [first + n for n, kind in enumerate(kinds) if kind == "unacknowledged" and data.draw(st.booleans())]
    for one in (theirs, mine):
        one._committed_offset[TOPIC] = committed if found is None else found
        one._acked[TOPIC].extend(late)
        one._acked_index[TOPIC].update(late)
    assert OURS._new_offset(mine, TOPIC) == Consumer._new_offset(theirs, TOPIC)


def test_a_gap_of_a_billion_is_passed_at_once():
    far = 10**9
    one = made([10, far], IntervalTree.from_tuples([(11, far)]), 10)
    assert OURS._new_offset(one, TOPIC) == far + 1
    assert (one._acked[TOPIC], one._acked_index[TOPIC], len(one._gap[TOPIC])) == ([], set(), 0)

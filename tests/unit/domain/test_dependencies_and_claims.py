"""Who waits for whom, who owns what, what a prune takes, which shard it is: tables, and laws against plain models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.domain.claims import Claims
from controlplane.domain.dependencies import Graph
from controlplane.domain.errors import Reason, Refused
from controlplane.domain.fold import Entry
from controlplane.domain.prune import check_share, prune
from controlplane.domain.sharding import shard_of

LETTERS = "abcde"
SHARDS = [13, 0, 12, 8]


def key(letter: str) -> str:
    return f"default/cache.namespace/{letter}"


def reference(letter: str) -> str:
    return f"cache.namespace/{letter}"


def graph(**needs: str) -> Graph:
    made = Graph()
    for letter, needed in needs.items():
        made.put(key(letter), [reference(other) for other in needed])
    return made


def letters(keys: Any) -> str:
    return "".join(k.rpartition("/")[2] for k in keys)


def ready(these: str) -> Callable[[str], bool]:
    return lambda k: letters([k]) in these


def test_a_key_waits_for_what_it_needs_until_that_is_ready():
    made = graph(a="bc")
    assert letters(made.unmet(key("a"), ready(""))) == "bc"
    assert letters(made.unmet(key("a"), ready("b"))) == "c"
    assert made.unmet(key("a"), ready("bc")) == []
    assert made.unmet(key("b"), ready("")) == []


def test_those_that_need_a_key_are_known_even_before_it_is_declared():
    made = graph(a="c", b="c")
    assert sorted(letters(made.dependents(key("c")))) == ["a", "b"]
    made.drop(key("a"))
    assert letters(made.dependents(key("c"))) == "b"
    made.put(key("b"), [reference("d")])
    assert letters(made.dependents(key("c"))) == ""
    assert letters(made.needs(key("b"))) == "d"


def test_what_is_followed_comes_first_without_being_needed():
    made = graph(b="c")
    made.put(key("a"), [reference("c")], [reference("b"), reference("c")])
    assert letters(made.follows(key("a"))) == "b", "what is needed isn't followed besides"
    assert letters(made.followers(key("b"))) == "a"
    assert letters(made.dependents(key("b"))) == ""
    assert made.unmet(key("a"), ready("c")) == []
    made.drop(key("a"))
    assert made.followers(key("b")) == set()


def test_nobody_follows_those_that_need_them():
    made = graph(b="c", c="a")
    made.put(key("a"), [], [reference("b")])
    assert (made.follows(key("a")), made.followers(key("b"))) == ((), set())
    assert made.cycle_through(key("a")) == ()
    made.drop(key("c"))
    assert letters(made.follows(key("a"))) == "b"


def test_dropping_a_needed_key_keeps_those_that_need_it():
    made = graph(a="b", b="c")
    made.drop(key("b"))
    assert letters(made.dependents(key("b"))) == "a"
    assert letters(made.dependents(key("c"))) == ""


def test_references_stay_within_the_tenant():
    made = Graph()
    made.put("one/cache.namespace/a", [reference("b"), reference("b")])
    assert made.needs("one/cache.namespace/a") == ("one/cache.namespace/b",)
    assert made.dependents("two/cache.namespace/b") == frozenset()


@pytest.mark.parametrize(
    ("needs", "start", "cycle"),
    [
        ({"a": "b", "b": "a"}, "a", "ab"),
        ({"a": "b", "b": "a"}, "b", "ba"),
        ({"a": "a"}, "a", "a"),
        ({"a": "b", "b": "c", "c": "a"}, "b", "bca"),
        ({"a": "bc", "b": "d", "d": "a", "c": "a"}, "a", "ac"),
        ({"a": "b", "b": "cd", "c": "b"}, "a", ""),
        ({"a": "b", "b": "c"}, "b", ""),
        ({}, "a", ""),
    ],
)
def test_the_shortest_cycle_through_a_key_is_named_in_order_of_need(needs: dict[str, str], start: str, cycle: str):
    assert letters(graph(**needs).cycle_through(key(start))) == cycle


def test_a_cycle_is_gone_when_one_of_its_references_is():
    made = graph(a="b", b="c", c="a")
    made.put(key("b"), [])
    assert [made.cycle_through(key(letter)) for letter in "abc"] == [(), (), ()]


def test_a_chain_of_ten_thousand_keys_is_no_trouble():
    made = Graph()
    for n in range(10_000):
        made.put(key(str(n)), [reference(str(n + 1))])
    assert made.cycle_through(key("5000")) == ()
    made.put(key("9999"), [reference("0")])
    assert len(made.cycle_through(key("5000"))) == 10_000


EDITS = st.lists(st.tuples(st.sampled_from(LETTERS), st.none() | st.text(LETTERS, max_size=3)), max_size=20)


@given(EDITS)
def test_a_graph_edited_step_by_step_is_the_graph_made_at_once(edits: list[tuple[str, str | None]]):
    made, model = Graph(), {}
    for letter, needed in edits:
        if needed is None:
            made.drop(key(letter))
            model.pop(letter, None)
        else:
            made.put(key(letter), [reference(other) for other in needed])
            model[letter] = needed
    for letter in LETTERS:
        assert set(letters(made.needs(key(letter)))) == set(model.get(letter, ""))
        assert set(letters(made.dependents(key(letter)))) == {k for k, needed in model.items() if letter in needed}
        cycle = letters(made.cycle_through(key(letter)))
        assert bool(cycle) == reaches(model, letter, letter)
        assert all(after in model[before] for before, after in zip(cycle, cycle[1:] + cycle[:1], strict=True))


def reaches(model: dict[str, str], start: str, end: str) -> bool:
    seen, waiting = set(), list(model.get(start, ""))
    while waiting:
        letter = waiting.pop()
        if letter not in seen:
            seen.add(letter)
            waiting += model.get(letter, "")
    return end in seen


USER = ("default", "redis", "cache.redis_user", "app")


def test_the_older_setting_owns_an_object_whichever_is_seen_first():
    for order in (("a", 3, "b", 8), ("b", 8, "a", 3)):
        claims = Claims()
        claims.claim(order[0], USER, order[1])
        claims.claim(order[2], USER, order[3])
        assert (claims.owner(USER), claims.contested("a"), claims.contested("b")) == ("a", None, "a")


def test_of_two_settings_of_one_request_the_smaller_key_owns():
    claims = Claims()
    claims.claim("b", USER, 5)
    claims.claim("a", USER, 5)
    assert claims.owner(USER) == "a"


def test_a_claim_or_a_release_names_those_whose_standing_it_changed():
    claims = Claims()
    assert claims.claim("b", USER, 8) == []
    assert claims.claim("c", USER, 9) == []
    assert claims.claim("a", USER, 3) == ["b"]
    assert claims.claim("a", USER, 3) == []
    assert claims.release("c") == []
    assert claims.release("a") == ["b"]
    assert claims.release("b") == []
    assert claims.release("b") == []
    assert claims.owner(USER) is None


def test_claiming_another_object_gives_up_the_first():
    claims = Claims()
    claims.claim("a", USER, 1)
    claims.claim("b", USER, 2)
    assert claims.claim("a", (*USER, "other"), 1) == ["b"]
    assert (claims.owner(USER), claims.owner((*USER, "other"))) == ("b", "a")


def test_a_part_that_an_older_setting_owns_is_a_conflict_until_that_is_gone():
    claims = Claims()
    part = (*USER, "part")
    claims.claim("acl", part, 1)
    assert claims.claim("user", USER, 2, [part]) == []
    assert (claims.owner(USER), claims.contested("user"), claims.contested("acl")) == ("user", "acl", None)
    assert claims.release("acl") == ["user"]
    assert claims.contested("user") is None
    assert claims.claim("acl", part, 3) == []
    assert claims.contested("acl") == "user"
    assert claims.claim("user", USER, 2) == ["acl"]
    assert claims.contested("acl") is None


def test_what_several_share_nobody_else_has_alone_and_the_younger_claim_waits():
    claims = Claims()
    shared = (*USER, "shared")
    assert claims.claim("g1", "1", 1, shared=[shared]) == []
    assert claims.claim("user", "2", 3, [shared]) == []
    assert claims.claim("g2", "3", 2, shared=[shared]) == ["user"]
    assert claims.claim("g4", "4", 4, shared=[shared]) == []
    contested = {key: claims.contested(key) for key in ("g1", "g2", "user", "g4")}
    assert contested == {"g1": None, "g2": None, "user": "g1", "g4": "user"}
    assert claims.release("g1") == ["user"]
    assert claims.contested("user") == "g2"
    assert claims.release("g2") == ["user"]
    assert claims.contested("user") is None
    assert claims.release("user") == ["g4"]
    assert claims.contested("g4") is None


CLAIMED = st.tuples(st.integers(0, 2), st.integers(1, 4), st.sets(st.integers(0, 2)), st.sets(st.integers(0, 2)))
CLAIMS = st.lists(st.tuples(st.sampled_from(LETTERS), st.none() | CLAIMED), max_size=30)


@given(CLAIMS)
def test_claims_made_step_by_step_are_those_of_a_plain_table(steps: list[tuple[str, Any]]):
    claims, model = Claims(), {}
    for letter, claim in steps:
        before = {k: claims.contested(k) for k in model}
        if claim is None:
            moved = claims.release(letter)
            model.pop(letter, None)
        else:
            own, rank, parts, shared = claim
            moved = claims.claim(letter, own, rank, parts, shared=shared)
            model[letter] = rank, {own, *parts}, shared - {own, *parts}
        for identity in range(3):
            standing = sorted((rank, k) for k, (rank, owning, _) in model.items() if identity in owning)
            assert claims.owner(identity) == (standing[0][1] if standing else None)
        for k, (rank, owning, sharing) in model.items():
            older = {
                other
                for other, (other_rank, has, shares) in model.items()
                if (other_rank, other) < (rank, k) and (has & (owning | sharing) or shares & owning)
            }
            assert claims.contested(k) in (older or {None})
        lost_or_won = {
            k for k, was in before.items() if k in model and k != letter and bool(was) != bool(claims.contested(k))
        }
        assert lost_or_won <= set(moved)
        assert letter not in moved


def entry(letter: str, *, retiring: bool = False, **labels: str) -> Entry:
    body = {"value": {}, "labels": labels, "depends_on": [], "policy": {}}
    return Entry(key(letter), body, 1, 1, 1, "", "", retiring, None, "ann", "", "r")


def test_a_prune_retires_labelled_settings_that_are_no_longer_declared():
    entries = [entry("a", team="shop"), entry("b", team="shop", tier="1"), entry("c", team="ops"), entry("d")]
    found = prune(entries, {"team": "shop"}, {key("a")})
    assert (found.retire, found.labelled, found.share) == ((key("b"),), 2, 0.5)
    assert prune(entries, {"team": "shop", "tier": "1"}, set()).retire == (key("b"),)
    assert prune(entries, {"team": "none"}, set()).share == 0


def test_what_retires_already_is_neither_retired_again_nor_counted():
    assert prune([entry("a", retiring=True, t="x"), entry("b", t="x")], {"t": "x"}, {key("b")}) == ((), 1)


def test_a_prune_over_the_safety_share_is_refused_and_names_what_it_would_take():
    entries = [entry(str(n), t="x") for n in range(10)]
    check_share(prune(entries, {"t": "x"}, {key(str(n)) for n in range(3, 10)}))
    with pytest.raises(Refused, match="4 of 10") as caught:
        check_share(prune(entries, {"t": "x"}, {key(str(n)) for n in range(4, 10)}))
    assert caught.value.reason == Reason.PRUNE_REFUSED
    assert len(caught.value.faults) == 4


def test_a_prune_without_labels_is_refused():
    with pytest.raises(Refused):
        prune([entry("a")], {}, set())


def test_the_shard_of_a_target_never_changes():
    assert [shard_of("default", "cache", name, 16) for name in ("redis", "memcached", "main", "größe")] == SHARDS


@given(st.text(), st.text(), st.integers(1, 1024))
def test_a_shard_is_one_of_those_there_are(tenant: str, target: str, shards: int):
    assert 0 <= shard_of(tenant, "cache", target, shards) < shards

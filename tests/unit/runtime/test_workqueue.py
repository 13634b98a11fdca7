"""The work queue: one place a key, one pass a key, users first, nobody starves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controlplane.runtime.workqueue import AGEING_S, Priority, WorkQueue


def test_a_key_that_is_added_twice_is_handed_out_once():
    queue = WorkQueue()
    queue.add("a", Priority.RESYNC, 0.0)
    queue.add("a", Priority.USER, 0.0)
    assert queue.take(10, 0.0) == ["a"]
    assert queue.take(10, 0.0) == []


def test_users_changes_go_before_resyncs():
    queue = WorkQueue()
    queue.add("resync", Priority.RESYNC, 0.0)
    queue.add("user", Priority.USER, 0.0)
    assert queue.take(1, 0.0) == ["user"]


def test_a_resync_that_waited_long_goes_before_new_users_changes():
    queue = WorkQueue()
    queue.add("old", Priority.RESYNC, 0.0)
    queue.add("early", Priority.USER, 0.0)
    assert queue.take(1, AGEING_S + 1) == ["early"]
    queue.add("late", Priority.USER, AGEING_S + 1)
    assert queue.take(1, AGEING_S + 1) == ["old"]


def test_a_key_in_a_pass_comes_back_only_after_the_pass():
    queue = WorkQueue()
    queue.add("a", Priority.USER, 0.0)
    assert queue.take(1, 0.0) == ["a"]
    queue.add("a", Priority.USER, 0.0)
    assert queue.take(1, 0.0) == []
    queue.done("a", 0.0)
    assert queue.take(1, 0.0) == ["a"]


def test_a_key_that_is_due_later_waits_and_tells_when():
    queue = WorkQueue()
    queue.add("a", Priority.USER, 0.0, due=5.0)
    assert queue.take(1, 4.9) == []
    assert queue.next_due() == 5.0
    assert queue.take(1, 5.0) == ["a"]
    assert queue.next_due() is None


def test_what_waits_gets_sooner_but_never_later_by_adding():
    queue = WorkQueue()
    queue.add("a", Priority.USER, 0.0, due=5.0)
    queue.add("a", Priority.RESYNC, 0.0, due=2.0)
    queue.add("a", Priority.RESYNC, 0.0, due=9.0)
    assert queue.next_due() == 2.0


def test_postponing_makes_it_later():
    queue = WorkQueue()
    queue.add("a", Priority.USER, 0.0)
    queue.postpone("a", Priority.USER, 0.0, 7.0)
    assert queue.take(1, 6.9) == []
    assert queue.take(1, 7.0) == ["a"]


def test_a_postponement_during_a_pass_holds_after_it():
    queue = WorkQueue()
    queue.add("a", Priority.USER, 0.0)
    queue.take(1, 0.0)
    queue.postpone("a", Priority.USER, 0.0, 7.0)
    queue.done("a", 1.0)
    assert queue.take(1, 6.0) == []
    assert queue.take(1, 7.0) == ["a"]


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(list(Priority)), st.floats(0, 100))))
def test_everything_added_is_handed_out_exactly_once(additions):
    queue = WorkQueue()
    for key, priority, due in additions:
        queue.add(key, priority, 0.0, due=due)
    taken = queue.take(100, 100.0)
    assert sorted(taken) == sorted({key for key, _, _ in additions})
    assert len(queue) == 0


class QueueMachine(RuleBasedStateMachine):
    """Any sequence of calls: what was added is never lost and never out twice."""

    def __init__(self):
        super().__init__()
        self.queue = WorkQueue()
        self.now = 0.0
        self.owed: set[str] = set()
        self.out: list[str] = []

    @rule(key=st.sampled_from("abcd"), priority=st.sampled_from(list(Priority)), ahead=st.floats(0, 10))
    def add(self, key, priority, ahead):
        self.queue.add(key, priority, self.now, due=self.now + ahead)
        self.owed.add(key)

    @rule(key=st.sampled_from("abcd"), ahead=st.floats(0, 10))
    def postpone(self, key, ahead):
        self.queue.postpone(key, Priority.USER, self.now, self.now + ahead)
        self.owed.add(key)

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds):
        self.now += seconds

    @rule(limit=st.integers(1, 4))
    def take(self, limit):
        taken = self.queue.take(limit, self.now)
        assert not set(taken) & set(self.out)
        self.owed -= set(taken)
        self.out += taken

    @rule()
    def done(self):
        if self.out:
            self.queue.done(self.out.pop(0), self.now)

    @invariant()
    def nothing_owed_is_forgotten(self):
        assert all(key in self.queue for key in self.owed)

    def teardown(self):
        for key in self.out:
            self.queue.done(key, self.now)
        assert set(self.queue.take(100, self.now + 1000)) == self.owed


TestQueueMachine = QueueMachine.TestCase

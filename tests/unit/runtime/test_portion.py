"""How many keys a pass takes follows how soon effects begin."""

from __future__ import annotations

from controlplane.runtime.portion import FIRST, LEAST, Portion


def test_a_new_target_takes_a_moderate_portion_and_never_more_than_its_service() -> None:
    assert Portion(250, 1.0).size == FIRST
    assert Portion(16, 1.0).size == 16


def test_effects_that_begin_early_double_the_portion_up_to_the_service_s_batch() -> None:
    portion = Portion(250, 1.0)
    portion.began(0.1, expired=False)
    assert portion.size == 2 * FIRST
    portion.began(0.1, expired=False)
    assert portion.size == 250


def test_effects_that_begin_late_or_not_at_all_halve_the_portion_down_to_the_least() -> None:
    portion = Portion(250, 1.0)
    portion.began(0.6, expired=False)
    assert portion.size == FIRST // 2
    portion.began(0.0, expired=True)
    assert portion.size == FIRST // 4
    for _ in range(10):
        portion.began(2.0, expired=True)
    assert portion.size == LEAST


def test_a_service_with_a_batch_below_the_least_keeps_it() -> None:
    portion = Portion(2, 1.0)
    portion.began(2.0, expired=True)
    assert portion.size == 2


def test_between_early_and_late_the_portion_stays() -> None:
    portion = Portion(250, 1.0)
    portion.began(0.3, expired=False)
    assert portion.size == FIRST


def test_a_pass_without_effects_lets_it_grow_again() -> None:
    portion = Portion(250, 1.0)
    portion.began(2.0, expired=True)
    portion.grow()
    assert portion.size == FIRST

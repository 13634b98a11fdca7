"""The answers of GET analytics/cache, from metrics, events and settings."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from reconcilers.cache.analysis import analyse
from reconcilers.contract import Evidence
from schemas.names import timestamp

T0 = 1_800_000_000.0
MB = 1024 * 1024


def metric(metric_type: str, at: float, value: float, **tags: str) -> dict[str, Any]:
    return {
        "metric_type": metric_type,
        "timestamp": timestamp(T0 + at),
        "value": value,
        "tags": {"target": "redis", **tags},
    }


def accepted(at: float, revision: int, setting: str = "default/cache.redis_config/main") -> dict[str, Any]:
    return {
        "event_type": "SettingAccepted",
        "timestamp": timestamp(T0 + at),
        "revision": revision,
        "setting": setting,
        "actor": "ann",
    }


def config(**parameters: str) -> dict[str, Any]:
    return {
        "setting_type": "cache.redis_config",
        "name": "main",
        "value": {"target": "redis", "parameters": parameters},
    }


def evidence(metrics: list[Any], events: list[Any] | None = None, settings: list[Any] | None = None) -> Evidence:
    return Evidence(T0, T0 + 3_600, metrics, events or [], [config(), *(settings or [])])


def reads(ratios: list[float], every_s: float = 60, each: float = 1_000) -> list[dict[str, Any]]:
    hits = misses = 0.0
    found = []
    for index, ratio in enumerate(ratios):
        found += [metric("hits_total", index * every_s, hits), metric("misses_total", index * every_s, misses)]
        hits, misses = hits + each * ratio, misses + each * (1 - ratio)
    return sorted(found, key=lambda row: row["timestamp"])


def test_a_change_that_cost_hits_is_named_with_its_revision() -> None:
    answer = analyse(evidence(reads([0.9] * 10 + [0.792] * 10), [accepted(601, 8812)]))
    (change,) = answer["targets"]["redis"]["changes"]
    assert (change["revision"], change["before"], change["after"], change["actor"]) == (8812, 0.9, 0.792, "ann")
    assert "redis: hit ratio fell 12 % after revision 8812 of cache.redis_config/main" in answer["findings"]


def test_a_change_without_effect_and_one_of_another_target_are_no_findings() -> None:
    events = [accepted(541, 1), accepted(600, 2, "default/cache.redis_config/other")]
    answer = analyse(evidence(reads([0.9] * 20), events))
    assert [change["revision"] for change in answer["targets"]["redis"]["changes"]] == [1]
    assert answer["findings"] == []


def test_few_reads_say_nothing() -> None:
    answer = analyse(evidence(reads([0.9] * 5 + [0.1] * 5, each=10), [accepted(301, 5)]))
    assert answer["targets"]["redis"]["changes"] == []


def test_a_restarted_server_counts_from_zero() -> None:
    rows = [metric("hits_total", at, value) for at, value in ((0, 1_000), (60, 1_100), (120, 50))]
    rows += [metric("misses_total", at, value) for at, value in ((0, 60), (60, 60), (120, 50))]
    assert analyse(evidence(rows))["targets"]["redis"]["hit_ratio"]["overall"] == 0.75


def test_nodes_are_counted_together() -> None:
    rows = [metric("hits_total", at, at, node=node) for node in ("a", "b") for at in (0, 60)]
    rows += [metric("misses_total", at, at / 3, node="a") for at in (0, 60)]
    assert analyse(evidence(rows))["targets"]["redis"]["hit_ratio"]["overall"] == round(120 / 140, 4)


def test_evictions_are_explained_by_limit_policy_and_lifetimes() -> None:
    full = [metric("used_memory_bytes", 60, 99 * MB), metric("memory_limit_bytes", 60, 100 * MB)]
    evicting = [*full, metric("evictions_total", 0, 5), metric("evictions_total", 60, 905)]
    answer = analyse(evidence(evicting))["targets"]["redis"]
    assert (answer["evictions"]["evicted"], answer["evictions"]["cause"]) == (900, "memory_limit")
    assert answer["memory"]["headroom_bytes"] == MB
    refused = analyse(evidence(full, settings=[config(**{"maxmemory-policy": "noeviction"})]))
    assert "refused" in refused["targets"]["redis"]["evictions"]["note"]
    eternal = [metric("without_ttl_keys", 60, 40)]
    paying = analyse(evidence(eternal, settings=[config(**{"maxmemory-policy": "volatile-lru"})]))
    assert "the 40 keys without a lifetime" in paying["targets"]["redis"]["evictions"]["note"]
    expired = analyse(evidence([metric("expired_total", 0, 0), metric("expired_total", 60, 7)]))
    assert expired["targets"]["redis"]["evictions"]["cause"] == "expired"


def test_a_smaller_limit_keeps_what_was_used_lately_and_a_bigger_one_keeps_longer() -> None:
    rows = [
        metric("objects_size_bytes", 60, 100 * MB),
        metric("used_memory_bytes", 60, 100 * MB),
        metric("memory_limit_bytes", 60, 100 * MB),
        metric("keys", 60, 1_000),
        metric("evictions_total", 0, 0),
        metric("evictions_total", 60, 3_600),
        *(
            metric("idle_size_bytes", 60, mb * MB, within=within)
            for within, mb in (("60", 25), ("300", 50), ("3600", 100))
        ),
    ]
    half, most, more, *_ = analyse(evidence(rows))["targets"]["redis"]["other_limits"]
    assert (half["kept_share"], half["kept_if_used_within_s"]) == (0.5, 300.0)
    assert (most["kept_share"], most["kept_if_used_within_s"]) == (0.75, 1_950.0)
    assert (more["kept_share"], more["kept_longer_s"]) == (1.0, 250)


def test_namespaces_are_listed_by_cost_and_held_against_their_budget() -> None:
    rows = [
        metric("objects_size_bytes", 60, 1_000),
        metric("namespace_size_bytes", 60, 600, namespace="products"),
        metric("namespace_keys", 60, 6, namespace="products"),
        metric("namespace_size_bytes", 60, 100, namespace="carts"),
        metric("namespace_keys", 60, 50, namespace="carts"),
    ]
    budget = {
        "setting_type": "cache.namespace",
        "name": "carts",
        "value": {"budget_keys": 10, "layers": [{"target": "redis"}]},
    }
    answer = analyse(evidence(rows, settings=[budget]))
    products, carts = answer["namespaces"]
    assert (products["namespace"], products["share"], products["over_budget"]) == ("products", 0.6, False)
    assert carts["over_budget"]
    assert "namespace carts is over its budget on redis" in answer["findings"]


def test_a_prefix_that_is_gone_is_not_listed() -> None:
    rows = [metric("prefix_size_bytes", 0, 9, prefix="old:"), metric("prefix_size_bytes", 3_000, 5, prefix="new:")]
    assert analyse(evidence(rows))["targets"]["redis"]["prefixes"] == [{"prefix": "new:", "size_bytes": 5}]


def test_nothing_measured_is_an_answer_too() -> None:
    answer = analyse(Evidence(T0, T0 + 60, [], [], []))
    assert (answer["targets"], answer["namespaces"], answer["findings"]) == ({}, [], [])


TYPES = [
    "hits_total",
    "misses_total",
    "evictions_total",
    "used_memory_bytes",
    "memory_limit_bytes",
    "objects_size_bytes",
    "keys",
]


@given(
    st.lists(
        st.builds(
            metric,
            st.sampled_from(TYPES) | st.just("idle_size_bytes"),
            st.floats(0, 3_600),
            st.floats(0, 1e12),
            within=st.sampled_from(["10", "60"]),
        ),
        max_size=40,
    ),
    st.lists(st.builds(accepted, st.floats(0, 3_600), st.integers(1, 99)), max_size=4),
)
def test_whatever_was_measured_ratios_and_shares_stay_within_bounds(metrics: list[Any], events: list[Any]) -> None:
    ordered = sorted(metrics, key=lambda row: row["timestamp"])
    found = analyse(evidence(ordered, sorted(events, key=lambda row: row["timestamp"])))["targets"].get("redis")
    if found is not None:
        overall = found["hit_ratio"]["overall"]
        assert overall is None or 0 <= overall <= 1
        assert all(0 <= point["value"] <= 1 for point in found["hit_ratio"]["points"])
        assert all(0 <= row["kept_share"] <= 1 for row in found["other_limits"])

"""What a sample says about a whole cache."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from reconcilers.cache.census import Census, Sampled, measurements, prefix_of, report
from schemas.cache_layout import bookkeeping, memcached_key, scan_pattern, tag_key

OBJECTS = (
    Sampled("shop:1", 100, ttl_s=30.0, idle_s=5.0),
    Sampled("shop:2", 300, ttl_s=None, idle_s=100.0),
    Sampled("cart:1", 50, ttl_s=90_000.0, idle_s=4_000.0),
    Sampled("plain", 10, ttl_s=700.0, idle_s=1.0),
)


def test_each_sampled_key_stands_for_its_share_of_all() -> None:
    found = report(Census(OBJECTS, keys=400, complete=False), top=2)
    assert (found["keys"], found["size_bytes"], found["sampled"]) == (400, 46_000, 4)
    assert found["without_ttl"] == {"keys": 100, "size_bytes": 30_000, "examples": ["shop:2"]}
    assert found["prefixes"][0] == {"prefix": "shop:", "keys": 200, "size_bytes": 40_000}
    assert [row["key"] for row in found["biggest"]] == ["shop:2", "shop:1"]
    assert [row["key"] for row in found["hottest"]] == ["plain", "shop:1"]
    assert found["ttl_keys"]["none"] == 100
    assert sum(found["ttl_keys"].values()) == 400


def test_an_empty_cache_is_reported_as_such() -> None:
    found = report(Census((), 0, complete=True), top=5)
    assert (found["keys"], found["size_bytes"], found["prefixes"], found["hottest"]) == (0, 0, [], [])


def test_counted_use_goes_before_idle_time() -> None:
    objects = (Sampled("a", 1, frequency=3), Sampled("b", 1, frequency=200))
    assert [row["key"] for row in report(Census(objects, 2, complete=True), top=5)["hottest"]] == ["b", "a"]


def test_measurements_name_the_namespaces_and_what_was_used_lately() -> None:
    values = {
        (one.metric_type, *one.tags.values()): one.value
        for one in measurements(Census(OBJECTS, 4, complete=True), [("products", "shop:"), ("empty", "none:")])
    }
    assert values["namespace_keys", "products"] == 2
    assert values["namespace_size_bytes", "products"] == 400
    assert values["namespace_without_ttl_keys", "products"] == 1
    assert values["namespace_keys", "empty"] == 0
    assert values["idle_size_bytes", "10"] == 110
    assert values["idle_size_bytes", "300"] == 410
    assert values[("without_ttl_keys",)] == 1


def test_the_prefix_of_a_key_ends_with_its_first_separator() -> None:
    assert [prefix_of(key) for key in ("shop:1:2", "a/b", "plain", ":odd")] == ["shop:", "a/", "plain", ":odd"]


@given(st.text(min_size=1, max_size=400), st.integers(0, 2**60))
def test_every_key_fits_memcached_and_stays_itself(key: str, floor: int) -> None:
    name = memcached_key("shop:", floor, key)
    assert len(name) <= 250
    assert all(33 <= ord(character) <= 126 for character in name)
    assert name == memcached_key("shop:", floor, key)
    assert name != memcached_key("shop:", floor + 1, key)
    assert name != memcached_key("shop:", floor, key + "x")


def test_bookkeeping_is_told_from_values_and_globs_are_taken_literally() -> None:
    assert bookkeeping("shop:", tag_key("shop:", "t"))
    assert not bookkeeping("shop:", "shop:t")
    assert scan_pattern("a[1]*") == "a\\[1\\]\\**"

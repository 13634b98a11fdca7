"""What the samples of a queue say."""

from __future__ import annotations

from reconcilers.contract import Evidence
from reconcilers.queue.analysis import analyse
from schemas.names import timestamp


def metric(at, kind, value, **tags):
    return {"timestamp": timestamp(at), "metric_type": kind, "value": value, "tags": {"target": "main", **tags}}


def analysed(*metrics):
    return analyse(Evidence(0, 100, metrics, (), ()))


def test_a_group_falls_behind_since_it_lagged_least():
    lags = [(10, 50), (20, 3), (30, 200), (40, 900)]
    found = analysed(*(metric(at, "lag_messages", lag, group="g", topic="t") for at, lag in lags))
    (group,) = found["targets"]["main"]["groups"]
    assert group == {"group": "g", "topic": "t", "lag_messages": 900, "falling_behind_since": timestamp(20)}
    assert "falls behind on t" in found["findings"][0]


def test_a_group_that_catches_up_or_hardly_lags_does_not_fall_behind():
    caught = [metric(at, "lag_messages", lag, group="g", topic="t") for at, lag in ((1, 900), (2, 5), (3, 300))]
    small = [metric(at, "lag_messages", lag, group="h", topic="t") for at, lag in ((1, 0), (2, 9))]
    found = analysed(*caught, *small)
    assert [one["falling_behind_since"] for one in found["targets"]["main"]["groups"]] == [None, None]
    assert found["findings"] == []


def test_the_topics_that_grow_most_come_first():
    sizes = [("big", 0, 1000), ("big", 86_400, 1000), ("busy", 0, 10), ("busy", 43_200, 60)]
    found = analysed(*(metric(at, "topic_bytes", size, topic=topic) for topic, at, size in sizes))
    topics = found["targets"]["main"]["topics"]
    assert [(one["topic"], one["growth_bytes_per_day"]) for one in topics] == [("busy", 100.0), ("big", 0.0)]


def test_what_is_wrong_with_partitions_and_routes_is_said():
    found = analysed(
        metric(1, "offline_partitions", 2),
        metric(1, "under_replicated_partitions", 3),
        metric(1, "routed_total", 10, route="r"),
        metric(9, "routed_total", 25, route="r"),
        metric(9, "dead_lettered_total", 4, route="r"),
    )
    (route,) = found["targets"]["main"]["routes"]
    assert route == {"route": "r", "routed": 25, "dead_lettered": 4, "routed_since": 15}
    assert [text.partition(": ")[2][:20] for text in found["findings"]] == [
        "2 partitions have no",
        "3 partitions lack re",
        "route r buried 4 mes",
    ]

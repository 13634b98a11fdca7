"""What the samples of a queue say."""

from __future__ import annotations

from reconcilers.contract import Evidence
from reconcilers.queue.analysis import analyse
from reconcilers.queue.lagging import MOST_POINTS, Ends
from schemas.names import timestamp


def metric(at, kind, value, **tags):
    return {"timestamp": timestamp(at), "metric_type": kind, "value": value, "tags": {"target": "main", **tags}}


def analysed(*metrics):
    return analyse(Evidence(0, 100, metrics, (), ()))


def test_a_group_falls_behind_since_it_lagged_least():
    lags = [(10, 50), (20, 3), (30, 200), (40, 900)]
    found = analysed(*(metric(at, "lag_messages", lag, group="g", topic="t") for at, lag in lags))
    (group,) = found["targets"]["main"]["groups"]
    assert (group["group"], group["topic"], group["lag_messages"]) == ("g", "t", 900)
    assert group["falling_behind_since"] == timestamp(20)
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
        metric(9, "failed_total", 6, route="r"),
    )
    (route,) = found["targets"]["main"]["routes"]
    assert route == {"route": "r", "routed": 25, "dead_lettered": 4, "repeated": 0, "failed": 6, "routed_since": 15}
    assert [text.partition(": ")[2][:20] for text in found["findings"]] == [
        "2 partitions have no",
        "3 partitions lack re",
        "route r buried 4 mes",
    ]


def test_rates_are_of_what_a_counter_gained_also_when_it_began_anew():
    found = analysed(
        *(metric(at, "topic_bytes", 0, topic="t") for at in (0, 100)),
        *(metric(at, "produced_total", total, topic="t") for at, total in ((0, 10), (50, 60), (100, 210))),
        *(metric(at, "lag_messages", 0, group="g", topic="t") for at in (0, 100)),
        metric(100, "lag_s", 7.5, group="g", topic="t"),
        *(metric(at, "consumed_total", total, group="g", topic="t") for at, total in ((0, 100), (50, 20), (100, 70))),
        *(metric(at, "rebalances_total", total, group="g") for at, total in ((0, 1), (50, 3), (60, 0), (100, 2))),
        *(metric(at, "isr_changes_total", total) for at, total in ((0, 5), (100, 9))),
    )["targets"]["main"]
    assert found["topics"][0]["produced_per_s"] == 2.0
    group = found["groups"][0]
    assert (group["consumed_per_s"], group["lag_s"], group["rebalances"]) == (0.5, 7.5, 4)
    assert found["isr_changes"] == 4


def test_a_topic_is_idle_when_nothing_came_for_an_hour():
    series = {"busy": ((0, 1), (4000, 2)), "idle": ((0, 5), (100, 6), (4000, 6)), "young": ((0, 5), (3000, 5))}
    found = analysed(
        *(metric(0, "topic_bytes", 1, topic=topic) for topic in series),
        *(metric(at, "produced_total", total, topic=topic) for topic, rows in series.items() for at, total in rows),
    )["targets"]["main"]
    assert found["idle_topics"] == ["idle"]
    assert {one["topic"]: one["idle_since"] for one in found["topics"]}["idle"] == timestamp(100)


def test_what_will_be_full_and_what_is_skewed_is_said():
    day = 86_400
    found = analysed(
        *(metric(at, "topic_bytes", size, topic="t") for at, size in ((0, 20_000_000), (day, 30_000_000))),
        metric(day, "topic_limit_bytes", 50_000_000, topic="t"),
        metric(day, "topic_skew_ratio", 4.5, topic="t"),
        *(metric(at, "disk_usable_bytes", size, broker="1") for at, size in ((0, 100), (day, 90))),
        *(metric(at, "disk_usable_bytes", size, broker="2") for at, size in ((0, 100), (day, 100))),
    )
    target = found["targets"]["main"]
    assert target["topics"][0]["days_until_retention"] == 2.0
    assert target["days_until_disk_full"] == 9.0
    assert target["skewed_topics"] == ["t"]
    assert [text.partition(": ")[2][:34] for text in found["findings"]] == [
        "a broker's disk is full in 9.0 day",
        "topic t reaches its retention.byte",
        "topic t: its biggest partition is ",
    ]


def test_delivery_is_told_by_percentiles_and_losses():
    assert analysed(metric(1, "brokers", 1))["targets"]["main"]["delivery"] is None
    took = [metric(at, "delivery_s", at / 100) for at in range(1, 101)]
    found = analysed(*took, *(metric(at, "canary_lost", at == 101) for at in range(1, 102)))
    delivery = found["targets"]["main"]["delivery"]
    assert delivery == {"messages": 101, "lost": 1, "p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99}
    assert "1 of 101 canary messages" in found["findings"][0]


def test_a_route_that_repeated_messages_says_how_it_would_not():
    found = analysed(metric(1, "routed_total", 10, route="r"), metric(1, "repeated_total", 3, route="r"))
    assert "may have delivered 3 messages twice" in found["findings"][0]


# --- how long messages wait ------------------------------------------------------------------------------------------------


def test_a_message_waits_since_the_look_that_saw_it_first():
    ends = Ends()
    for at, end in ((0.0, 100), (10.0, 100), (20.0, 110), (30.0, 110)):
        ends.look(at, end, [100])
    assert ends.waited_s(30.0, 110) == 0.0
    assert ends.waited_s(30.0, 100) == 19.0  # the first of ten that came between 10 and 20
    assert ends.waited_s(30.0, 109) == 10.0
    assert ends.waited_s(30.0, 90) == 20.0  # at least


def test_nobody_s_past_is_kept_and_no_more_than_so_much_of_it():
    ends = Ends()
    for at in range(1000):
        ends.look(float(at), at, [at])
    assert len(ends.points) == 1
    for at in range(1000, 3000):
        ends.look(float(at), at, [999])
    assert len(ends.points) <= MOST_POINTS
    assert 1900 <= ends.waited_s(2999.0, 999) <= 2001

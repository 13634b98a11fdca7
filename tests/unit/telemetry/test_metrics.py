"""The table of metrics and the object that fills it."""

import re
from itertools import product

from controlplane.telemetry.metrics import TABLE, Metrics
from controlplane.telemetry.samples import Samples


def exposed(metrics: Metrics) -> str:
    return metrics.render().decode()


def test_every_name_and_label_keeps_the_spelling():
    for row in TABLE:
        assert re.fullmatch(r"coreplane_[a-z][a-z_]*", row.name)
        assert row.name.endswith("_total") == (row.kind == "counter")
        assert row.help
        assert set(row.known) <= set(row.labels)
    assert len({row.name for row in TABLE}) == len(TABLE)


def test_finite_label_sets_exist_from_the_start():
    metrics = Metrics()
    assert metrics.value("coreplane_settings", service="cache", phase="Ready") == 0
    assert metrics.value("coreplane_events_total", event_type="Converged") == 0
    assert metrics.value("coreplane_verdicts_total", result="rejected") == 0


def test_two_daemons_in_one_process_do_not_mix():
    one, other = Metrics(), Metrics()
    one.bug("fold")
    assert one.value("coreplane_bugs_total", where="fold") == 1
    assert other.value("coreplane_bugs_total", where="fold") is None


def test_every_method_moves_a_metric_of_the_table():
    metrics = Metrics()
    metrics.settings({("cache", "Ready"): 3})
    metrics.appended(0.01)
    metrics.folded(2, 7)
    metrics.verdict(accepted=True)
    metrics.event("Converged")
    metrics.committed(0.01)
    metrics.shard_owned(3, owned=True)
    metrics.queued("cache", "t/cache/main", 4)
    metrics.waited("cache", 0.1)
    metrics.reconciled("cache", 5, 0.1)
    metrics.step("cache", "cache.redis_user", "SetUser", "succeeded")
    metrics.observed("cache", 0.1)
    metrics.swept("cache", 0.1)
    metrics.drift("cache", "cache.redis_user")
    metrics.hinted("cache")
    metrics.backed_off("cache", 0.5)
    metrics.secret_unresolved("cache")
    metrics.target_up("cache", "t/cache/main", up=True)
    metrics.incarnation_changed("cache", "t/cache/main")
    metrics.connect_failed("cache", "t/cache/main")
    metrics.circuit("cache", "t/cache/main", is_open=True)
    metrics.projection_lag(9, 1.5)
    metrics.projected("events", 9)
    metrics.dead_letter("events")
    metrics.projection_retried()
    metrics.projection_rebuilt()
    metrics.projection_degraded(degraded=True)
    metrics.projection_stalled()
    metrics.projection_rebalanced(2)
    metrics.projection_wrote(1_767_225_600.0)
    metrics.http("/v1/tenants/{tenant}/events", "GET", 200, 0.01)
    metrics.streams_open(2)
    metrics.refused("Forbidden")
    metrics.stream_dropped()
    metrics.bug("fold")
    values = {s.name: 0.0 for m in metrics.registry.collect() for s in m.samples}
    for sample in (s for m in metrics.registry.collect() for s in m.samples):
        values[sample.name] += sample.value
    for row in TABLE:
        assert values[f"{row.name}_count" if row.kind == "histogram" else row.name] > 0, row.name


def test_settings_that_are_no_longer_there_go_back_to_zero():
    metrics = Metrics()
    metrics.settings({("cache", "Ready"): 3})
    metrics.settings({("cache", "Stalled"): 1})
    assert metrics.value("coreplane_settings", service="cache", phase="Ready") == 0
    assert metrics.value("coreplane_settings", service="cache", phase="Stalled") == 1


def test_the_series_of_a_target_end_with_it():
    metrics = Metrics()
    metrics.target_up("cache", "t/cache/main", up=True)
    metrics.target_gone("cache", "t/cache/main")
    metrics.target_gone("cache", "never seen")
    assert 'target="t/cache/main"' not in exposed(metrics)


def test_the_exposition_has_no_created_series():
    assert "_created" not in exposed(Metrics())


def test_samples_carry_their_tags_as_labels_that_prometheus_accepts():
    metrics = Metrics()
    metrics.sampled("cache", "default", "used_memory_bytes", 12.0, {"target": "main", "a-b": 'x"y', "tenant": "other"})
    assert (
        'coreplane_sample{a_b="x\\"y",metric_type="used_memory_bytes",service="cache",tag_tenant="other",'
        'target="main",tenant="default"} 12.0' in exposed(metrics)
    )


def test_samples_over_the_limit_are_counted_and_the_ones_there_go_on():
    samples = Samples(most=10)
    for value, key in product((1.0, 2.0), range(15)):
        samples.set("t", "cache", "keys", value, {"namespace": str(key)})
    family, refused = list(samples.collect())
    assert [sample.value for sample in family.samples] == [2.0] * 10
    assert refused.samples[0].value == 10


def test_samples_that_are_not_renewed_vanish_and_make_room():
    now = [0.0]
    samples = Samples(most=1, clock=lambda: now[0])
    samples.set("t", "cache", "keys", 1.0, {"namespace": "old"})
    now[0] = 1000.0
    samples.set("t", "cache", "keys", 2.0, {"namespace": "new"})
    family, _ = list(samples.collect())
    assert [sample.labels["namespace"] for sample in family.samples] == ["new"]

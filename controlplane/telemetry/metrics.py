"""Every Prometheus metric of the daemon: the table, and `Metrics`, whose methods say what happened.

`Metrics` has its own registry: two daemons in one process, as in tests, don't mix. Label sets that are known beforehand
exist from the start with 0, so that a rate over the first occurrence isn't lost. `target` is `tenant/service/target`.
A method never raises and never waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import product
from typing import Any, Final, Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from controlplane.telemetry.samples import Samples
from schemas.event import EventType
from schemas.names import SERVICES
from schemas.setting import Phase

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

_FAST: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLOW: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)

_EACH_SERVICE: Final = {"service": SERVICES}
_STREAMS: Final = {"stream": ("events", "metrics", "status")}


class Row(NamedTuple):
    """One metric. `known`: for each of its labels all values, when they are finite: pre-set to 0."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    known: Mapping[str, Iterable[str]] = {}
    buckets: tuple[float, ...] = _FAST


TABLE: Final = (
    # settings and their log
    Row(
        "coreplane_settings",
        "gauge",
        "Settings in the folded state",
        ("service", "phase"),
        {**_EACH_SERVICE, "phase": tuple(Phase)},
    ),
    Row("coreplane_log_append_seconds", "histogram", "From the append of a change request to its acknowledgement"),
    Row("coreplane_fold_position", "gauge", "Position of this replica's fold in the settings log"),
    Row("coreplane_folded_total", "counter", "Records of the settings log folded"),
    Row(
        "coreplane_verdicts_total",
        "counter",
        "Change requests judged by the fold",
        ("result",),
        {"result": ("accepted", "rejected")},
    ),
    # journal and shards
    Row(
        "coreplane_events_total",
        "counter",
        "Events given to the journal",
        ("event_type",),
        {"event_type": tuple(EventType)},
    ),
    Row("coreplane_commits_total", "counter", "Commits to the journal"),
    Row("coreplane_commit_seconds", "histogram", "Duration of a commit to the journal"),
    Row("coreplane_shard_owned", "gauge", "1 while this replica owns the shard", ("shard",)),
    # the controller
    Row("coreplane_queue_depth", "gauge", "Keys in the work queue of a target", ("service", "target")),
    Row(
        "coreplane_queue_wait_seconds",
        "histogram",
        "From due to taken out of the work queue",
        ("service",),
        _EACH_SERVICE,
        _SLOW,
    ),
    Row(
        "coreplane_reconcile_seconds",
        "histogram",
        "Duration of one pass over a batch of keys",
        ("service", "result"),
        {**_EACH_SERVICE, "result": ("done", "failed")},
        _SLOW,
    ),
    Row("coreplane_reconciled_total", "counter", "Keys reconciled", ("service",), _EACH_SERVICE),
    Row("coreplane_steps_total", "counter", "Steps taken", ("service", "setting_type", "step", "result")),
    Row("coreplane_observe_seconds", "histogram", "Duration of one observation", ("service",), _EACH_SERVICE),
    Row(
        "coreplane_sweep_seconds", "histogram", "Duration of one sweep of a target", ("service",), _EACH_SERVICE, _SLOW
    ),
    Row("coreplane_drift_total", "counter", "Drift detected", ("service", "setting_type")),
    Row("coreplane_hints_total", "counter", "Hints received from backends", ("service",), _EACH_SERVICE),
    Row("coreplane_backoff_seconds", "histogram", "Pauses after failures", ("service",), _EACH_SERVICE, _SLOW),
    Row(
        "coreplane_secrets_unresolved_total",
        "counter",
        "References to secrets that didn't resolve",
        ("service",),
        _EACH_SERVICE,
    ),
    # targets
    Row("coreplane_target_up", "gauge", "1 while the target answers", ("service", "target")),
    Row("coreplane_target_incarnations_total", "counter", "Restarts of a target's server seen", ("service", "target")),
    Row(
        "coreplane_target_connect_failures_total",
        "counter",
        "Connections to a target that failed or broke",
        ("service", "target"),
    ),
    Row("coreplane_target_circuit_open", "gauge", "1 while nothing is tried on the target", ("service", "target")),
    # the projection
    Row("coreplane_projection_lag_records", "gauge", "Records of the journal not yet projected"),
    Row("coreplane_projection_lag_seconds", "gauge", "Age of the last projected record while there are others to come"),
    Row("coreplane_projected_total", "counter", "Records projected", ("stream",), _STREAMS),
    Row("coreplane_projection_dead_letters_total", "counter", "Records that can't be projected", ("stream",), _STREAMS),
    Row("coreplane_projection_retries_total", "counter", "Attempts that failed because of the store or the journal"),
    Row("coreplane_projection_rebuilds_total", "counter", "Times the projection was begun anew"),
    Row("coreplane_projection_degraded", "gauge", "1 while the projection can't go on"),
    Row(
        "coreplane_projection_stalls_total", "counter", "Times the reader stood still without a reason and was replaced"
    ),
    Row(
        "coreplane_projection_rebalances_total",
        "counter",
        "Times the partitions were shared out anew among the readers",
    ),
    Row("coreplane_projection_last_write_seconds", "gauge", "When the store took documents last, Unix time"),
    # HTTP
    Row("coreplane_http_requests_total", "counter", "HTTP requests answered", ("route", "method", "status")),
    Row("coreplane_http_request_seconds", "histogram", "Duration of an HTTP request", ("route",)),
    Row(
        "coreplane_requests_refused_total",
        "counter",
        "HTTP requests refused for who made them, or how often",
        ("reason",),
        {"reason": ("Unauthenticated", "Forbidden", "TooManyRequests", "QuotaExceeded")},
    ),
    Row("coreplane_streams_open", "gauge", "Event streams open"),
    Row("coreplane_streams_dropped_total", "counter", "Event streams closed because their reader was too slow"),
    # ourselves
    Row("coreplane_bugs_total", "counter", "Unexpected exceptions", ("where",)),
)

_KINDS: Final = {"counter": Counter, "gauge": Gauge}


class Metrics:
    """The metrics of one daemon."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self._rows: dict[str, Any] = {row.name: _made(row, self.registry) for row in TABLE}
        self._samples = Samples()
        self.registry.register(self._samples)
        ProcessCollector(registry=self.registry)

    def render(self) -> bytes:
        """The text exposition; its content type is `CONTENT_TYPE`."""
        return generate_latest(_WithoutCreated(self.registry))

    def value(self, name: str, **labels: str) -> float | None:
        """The current value of one series (`coreplane_steps_total`), None when it doesn't exist."""
        return self.registry.get_sample_value(name, labels)

    # --- settings and their log ----------------------------------------------------------------------------------------

    def settings(self, counts: Mapping[tuple[str, str], int]) -> None:
        """How many settings there are by (service, phase); what isn't named is 0."""
        for service, phase in product(SERVICES, Phase):
            self._rows["coreplane_settings"].labels(service, phase).set(counts.get((service, str(phase)), 0))

    def appended(self, seconds: float) -> None:
        """An append to the settings log ended, well or not."""
        self._rows["coreplane_log_append_seconds"].observe(seconds)

    def folded(self, records: int, position: int) -> None:
        """The fold went on by so many records, to this position."""
        self._rows["coreplane_folded_total"].inc(records)
        self._rows["coreplane_fold_position"].set(position)

    def verdict(self, *, accepted: bool) -> None:
        """The fold judged a change request."""
        self._rows["coreplane_verdicts_total"].labels("accepted" if accepted else "rejected").inc()

    # --- journal and shards --------------------------------------------------------------------------------------------

    def event(self, event_type: str) -> None:
        """An event was given to the journal."""
        self._rows["coreplane_events_total"].labels(event_type).inc()

    def committed(self, seconds: float) -> None:
        """A commit to the journal succeeded."""
        self._rows["coreplane_commits_total"].inc()
        self._rows["coreplane_commit_seconds"].observe(seconds)

    def shard_owned(self, shard: int, *, owned: bool) -> None:
        """A shard was taken or lost."""
        self._rows["coreplane_shard_owned"].labels(str(shard)).set(owned)

    # --- the controller ------------------------------------------------------------------------------------------------

    def queued(self, service: str, target: str, depth: int) -> None:
        """So many keys are in the work queue of the target."""
        self._rows["coreplane_queue_depth"].labels(service, target).set(depth)

    def waited(self, service: str, seconds: float) -> None:
        """A key was taken out of the work queue so long after it was due."""
        self._rows["coreplane_queue_wait_seconds"].labels(service).observe(seconds)

    def reconciled(self, service: str, keys: int, seconds: float, result: str = "done") -> None:
        """A pass over so many keys ended: `done` or `failed`."""
        self._rows["coreplane_reconciled_total"].labels(service).inc(keys)
        self._rows["coreplane_reconcile_seconds"].labels(service, result).observe(seconds)

    def step(self, service: str, setting_type: str, step: str, result: str) -> None:
        """A step ended (`reconcilers.contract.Result`)."""
        self._rows["coreplane_steps_total"].labels(service, setting_type, step, result).inc()

    def observed(self, service: str, seconds: float) -> None:
        """An observation ended."""
        self._rows["coreplane_observe_seconds"].labels(service).observe(seconds)

    def swept(self, service: str, seconds: float) -> None:
        """A sweep of one target ended."""
        self._rows["coreplane_sweep_seconds"].labels(service).observe(seconds)

    def drift(self, service: str, setting_type: str) -> None:
        """A setting was found to differ."""
        self._rows["coreplane_drift_total"].labels(service, setting_type).inc()

    def hinted(self, service: str) -> None:
        """A backend hinted at a change."""
        self._rows["coreplane_hints_total"].labels(service).inc()

    def backed_off(self, service: str, seconds: float) -> None:
        """A key or a target is left alone for so long after a failure."""
        self._rows["coreplane_backoff_seconds"].labels(service).observe(seconds)

    def secret_unresolved(self, service: str) -> None:
        """A reference to a secret didn't resolve."""
        self._rows["coreplane_secrets_unresolved_total"].labels(service).inc()

    # --- targets -------------------------------------------------------------------------------------------------------

    def target_up(self, service: str, target: str, *, up: bool) -> None:
        """A target answers, or doesn't any more."""
        self._rows["coreplane_target_up"].labels(service, target).set(up)

    def incarnation_changed(self, service: str, target: str) -> None:
        """The server of a target was restarted."""
        self._rows["coreplane_target_incarnations_total"].labels(service, target).inc()

    def connect_failed(self, service: str, target: str) -> None:
        """A connection to a target failed or broke."""
        self._rows["coreplane_target_connect_failures_total"].labels(service, target).inc()

    def circuit(self, service: str, target: str, *, is_open: bool) -> None:
        """Open: nothing is tried on the target for now."""
        self._rows["coreplane_target_circuit_open"].labels(service, target).set(is_open)

    def target_gone(self, service: str, target: str) -> None:
        """The target is no longer ours: its series end."""
        for row in TABLE:
            if row.labels == ("service", "target"):
                with suppress(KeyError):  # not every target has every series
                    self._rows[row.name].remove(service, target)

    def sampled(self, service: str, tenant: str, metric_type: str, value: float, tags: Mapping[str, str]) -> None:
        """A value was sampled from a backend."""
        self._samples.set(tenant, service, metric_type, value, tags)

    # --- the projection ------------------------------------------------------------------------------------------------

    def projection_lag(self, records: int, seconds: float) -> None:
        """How far the projection is behind the journal."""
        self._rows["coreplane_projection_lag_records"].set(records)
        self._rows["coreplane_projection_lag_seconds"].set(seconds)

    def projected(self, stream: str, records: int) -> None:
        """So many records of a stream were projected; statuses of one setting that come together count as one."""
        self._rows["coreplane_projected_total"].labels(stream).inc(records)

    def dead_letter(self, stream: str) -> None:
        """A record can't be projected and was put aside."""
        self._rows["coreplane_projection_dead_letters_total"].labels(stream).inc()

    def projection_retried(self) -> None:
        """The store or the journal refused for now."""
        self._rows["coreplane_projection_retries_total"].inc()

    def projection_rebuilt(self) -> None:
        """The projection was begun anew."""
        self._rows["coreplane_projection_rebuilds_total"].inc()

    def projection_stalled(self) -> None:
        """The reader stood still without a reason."""
        self._rows["coreplane_projection_stalls_total"].inc()

    def projection_rebalanced(self, times: int) -> None:
        """Partitions were shared out anew."""
        self._rows["coreplane_projection_rebalances_total"].inc(times)

    def projection_wrote(self, at: float) -> None:
        """The store took documents."""
        self._rows["coreplane_projection_last_write_seconds"].set(at)

    def projection_degraded(self, *, degraded: bool) -> None:
        """The projection can't go on for now, or goes on again."""
        self._rows["coreplane_projection_degraded"].set(degraded)

    # --- HTTP and ourselves --------------------------------------------------------------------------------------------

    def http(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is the pattern, never the path: paths are without number."""
        self._rows["coreplane_http_requests_total"].labels(route, method, str(status)).inc()
        self._rows["coreplane_http_request_seconds"].labels(route).observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was refused for who made it, or how often."""
        self._rows["coreplane_requests_refused_total"].labels(reason).inc()

    def streams_open(self, streams: int) -> None:
        """So many event streams are open now."""
        self._rows["coreplane_streams_open"].set(streams)

    def stream_dropped(self) -> None:
        """An event stream was closed because its reader was too slow."""
        self._rows["coreplane_streams_dropped_total"].inc()

    def bug(self, where: str) -> None:
        """An exception that nobody expected. `where` is a constant word of the code."""
        self._rows["coreplane_bugs_total"].labels(where).inc()


class _WithoutCreated:
    """A registry without the `_created` series, which double every counter and which nobody here reads."""

    def __init__(self, registry: Collector) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


def _made(row: Row, registry: CollectorRegistry) -> Any:
    if row.kind == "histogram":
        made: Any = Histogram(row.name, row.help, row.labels, registry=registry, buckets=row.buckets)
    else:
        made = _KINDS[row.kind](row.name, row.help, row.labels, registry=registry)
    if row.labels and set(row.known) == set(row.labels):
        for values in product(*(row.known[label] for label in row.labels)):
            made.labels(*(str(value) for value in values))
    return made

"""Journal records → documents. Pure, total: a record becomes a document or a dead letter, it never vanishes.

A record is dead when it isn't what its stream holds (undecodable, a field missing or of a wrong type). What a newer writer
adds is kept: an unknown event type or an unknown field is no reason.

Note [A document a shard]. A setting whose target was changed may have moved to another shard, and shards are read in no order:
the old one's last status, or its tombstone, may come after the new one's first, and their offsets don't compare. One document
of a setting, versioned by offsets, would then keep the old status, or lose the new one. So a setting has a document in each
shard that holds a status of it, usually one, and only versions of one shard meet; questions are answered from the one with the
newest revision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from controlplane.domain.status import KeyStatus, NotUnderstood, public, understood
from controlplane.log import codec
from controlplane.log.ports import Entry, Place, Stream
from schemas.event import InfrastructureEvent
from schemas.metric import InfrastructureMetric


class EventDocument(NamedTuple):
    """One event. `body` is the whole event as JSON text, unknown fields included."""

    id: str
    tenant: str
    event_type: str
    at_us: int
    """Its timestamp as Unix microseconds."""
    service_name: str
    status: str
    setting: str | None
    text: str
    """What a search for words looks at."""
    body: str


class MetricDocument(NamedTuple):
    """One metric. `tags` and `extra` (unknown fields, None when there are none) are JSON text with sorted keys."""

    id: str
    tenant: str
    metric_type: str
    at_us: int
    service_name: str
    value: float
    tags: str
    extra: str | None


class StatusDocument(NamedTuple):
    """What one shard says of one setting. `body`: the status as it is answered, as JSON text; None: nothing any more."""

    setting: str
    shard: int
    version: int
    """Offset + 1: a document is replaced by those of its shard with a higher one only."""
    tenant: str
    setting_type: str
    service_name: str
    revision: int = 0
    """Of two shards that say something of a setting, the one with the newer revision counts."""
    phase: str = ""
    conditions: Sequence[str] = ()
    """`Ready=False` each."""
    reasons: Sequence[str] = ()
    """Of these conditions."""
    text: str = ""
    """What a search for words looks at."""
    body: str | None = None

    @property
    def id(self) -> str:
        """Note [A document a shard]."""
        return f"{self.shard}/{self.setting}"


class DeadLetter(NamedTuple):
    """A record that can't be projected: where it stands, why, and all of its bytes."""

    stream: str
    shard: int
    offset: int
    key: str
    reason: str
    data: bytes


class Batch(NamedTuple):
    """What a store writes at once."""

    events: Sequence[EventDocument] = ()
    metrics: Sequence[MetricDocument] = ()
    statuses: Sequence[StatusDocument] = ()
    dead_letters: Sequence[DeadLetter] = ()


class NotADocument(ValueError):
    """The record isn't what its stream holds."""


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
INTERNAL: Final = "#"
"""What the keys of a shard's own records begin with."""
DEEPEST: Final = 64
"""Levels of nesting in a document: what is stored must be readable, by recursion, wherever it is asked for."""
_EVENT_FIELDS: Final = frozenset(InfrastructureEvent.model_fields)
_METRIC_FIELDS: Final = frozenset(InfrastructureMetric.model_fields)


def documents(entries: Iterable[Entry]) -> Batch:
    """The documents of some records, in their order."""
    events: list[EventDocument] = []
    metrics: list[MetricDocument] = []
    statuses: list[StatusDocument] = []
    dead: list[DeadLetter] = []
    for entry in current(entries):
        try:
            if entry.stream is Stream.EVENTS:
                events.append(event_document(_decoded(entry)))
            elif entry.stream is Stream.METRICS:
                metrics.append(metric_document(_decoded(entry)))
            else:
                statuses.append(status_document(entry))
        except (NotADocument, NotUnderstood, codec.Undecodable) as exc:
            dead.append(dead_letter(entry, str(exc)))
    return Batch(events, metrics, statuses, dead)


def current(entries: Iterable[Entry]) -> list[Entry]:
    """Those that become documents: of a setting's statuses in one shard the newest, and no records of the shard's own."""
    given = list(entries)
    newest: dict[tuple[int, str], int] = {}
    for entry in given:
        if entry.stream is Stream.STATUS:
            place = entry.shard, entry.key
            newest[place] = max(entry.offset, newest.get(place, 0))
    return [
        entry
        for entry in given
        if entry.stream is not Stream.STATUS
        or (newest[entry.shard, entry.key] == entry.offset and not entry.key.startswith(INTERNAL))
    ]


def positions_after(entries: Iterable[Entry]) -> dict[Place, int]:
    """Where a reader stands once it has these records."""
    return {Place(entry.stream, entry.shard): entry.offset + 1 for entry in entries}


def dead_letter(entry: Entry, reason: str) -> DeadLetter:
    """The record put aside."""
    return DeadLetter(str(entry.stream), entry.shard, entry.offset, entry.key, reason, entry.data or b"")


def event_document(event: Mapping[str, Any]) -> EventDocument:
    """Raises `NotADocument`."""
    details = event.get("details", {})
    setting, actor = _optional(event, "setting"), _optional(event, "actor")
    if not isinstance(details, dict):
        raise NotADocument(f"details is a {type(details).__name__}, not a map")
    event_type = _text(event, "event_type")
    words = (event_type, setting or "", actor or "", *_words(details))
    _check_depth({name: event[name] for name in event if name not in _EVENT_FIELDS})
    return EventDocument(
        _text(event, "id"),
        _text(event, "tenant"),
        event_type,
        _instant_us(event),
        _text(event, "service_name"),
        _text(event, "status"),
        setting,
        " ".join(words).replace("\0", " "),
        _json(event, _encoder),
    )


def metric_document(metric: Mapping[str, Any]) -> MetricDocument:
    """Raises `NotADocument`."""
    value, tags = metric.get("value"), metric.get("tags", {})
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise NotADocument(f"value is {value!r}, not a finite number")
    if not isinstance(tags, dict) or not all(isinstance(tag, str) for tag in tags.values()):
        raise NotADocument("tags isn't a map of texts")
    extra = {name: metric[name] for name in metric if name not in _METRIC_FIELDS}
    _check_depth(extra)
    return MetricDocument(
        _text(metric, "id"),
        _text(metric, "tenant"),
        _text(metric, "metric_type"),
        _instant_us(metric),
        _text(metric, "service_name"),
        float(value),
        _json(tags, _sorting_encoder),
        _json(extra, _sorting_encoder) if extra else None,
    )


def status_document(entry: Entry) -> StatusDocument:
    """Raises `NotADocument`, `NotUnderstood` or `Undecodable`. What a takeover needs of a status isn't projected."""
    parts = entry.key.split("/")
    if len(parts) != 3 or not all(parts):
        raise NotADocument(f"its key is {entry.key!r}, not a setting's")
    tenant, setting_type, name = parts
    service_name = setting_type.partition(".")[0]
    gone = StatusDocument(entry.key, entry.shard, entry.offset + 1, tenant, setting_type, service_name)
    if entry.data is None:
        return gone
    status = understood(entry.key, codec.decode(entry.data))
    if not isinstance(status.revision, int):
        raise NotADocument(f"revision is {status.revision!r}, not a number")
    told: dict[str, Any] = {"setting": entry.key, "tenant": tenant, "setting_type": setting_type, "name": name}
    told |= {"service_name": service_name, "revision": status.revision, **public(status)}
    return gone._replace(
        revision=status.revision,
        phase=str(status.phase),
        conditions=[f"{c.type}={c.status}" for c in status.conditions],
        reasons=sorted({c.reason for c in status.conditions}),
        text=" ".join(_words_of(status)).replace("\0", " "),
        body=_json(told, _encoder),
    )


def rfc3339(at_us: int) -> str:
    """Unix microseconds as the text that stands in events and metrics."""
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _decoded(entry: Entry) -> dict[str, Any]:
    if entry.data is None:
        raise NotADocument("a tombstone")
    return codec.decode(entry.data)


def _text(record: Mapping[str, Any], name: str) -> str:
    text = record.get(name)
    if not isinstance(text, str) or not text:
        raise NotADocument(f"{name} is {text!r}, not a text")
    return text


def _optional(record: Mapping[str, Any], name: str) -> str | None:
    return None if record.get(name) is None else _text(record, name)


def _instant_us(record: Mapping[str, Any]) -> int:
    text = _text(record, "timestamp")
    try:
        moment = datetime.fromisoformat(text)
        return (moment - _EPOCH) // _MICROSECOND
    except (ValueError, TypeError) as exc:
        raise NotADocument(f"timestamp is {text!r}, not a time with an offset") from exc


def _json(value: Any, encoder: json.JSONEncoder) -> str:
    try:
        return encoder.encode(value)
    except (TypeError, ValueError) as exc:
        raise NotADocument(f"not JSON: {exc}") from exc


_encoder: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_sorting_encoder: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def _check_depth(value: Any) -> None:
    for _ in _words(value):
        pass


def _words_of(status: KeyStatus) -> Iterator[str]:
    """Names, reasons and messages, and what differs."""
    told = [text for condition in status.conditions for text in (condition.reason, condition.message)]
    differ = [part for difference in (*status.drift, *status.muted) for part in difference]
    return _words([status.key, status.external, status.last_action and status.last_action.step, *told, *differ])


def _words(value: Any, depth: int = DEEPEST) -> Iterator[str]:
    """Names and values at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        if depth == 0:
            raise NotADocument(f"nested deeper than {DEEPEST} levels")
        if isinstance(value, dict):
            yield from value
        for inner in value.values() if isinstance(value, dict) else value:
            if isinstance(inner, str):  # most are, and a generator for each costs more than the word
                yield inner
            else:
                yield from _words(inner, depth - 1)
    elif value is not None:
        yield str(value)

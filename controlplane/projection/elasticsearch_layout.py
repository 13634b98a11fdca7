"""How the projection lies in Elasticsearch: names of indices, their mappings, and what a document becomes there. Pure.

    <prefix>-projection-g<n>            positions; the alias <prefix>-projection says which generation is live
    <prefix>-events-g<n>-YYYY.MM.DD     events of one day, by their own timestamps; alias <prefix>-events
    <prefix>-metrics-g<n>-YYYY.MM.DD    the same for metrics; alias <prefix>-metrics
    <prefix>-status-g<n>                the newest status of each setting; alias <prefix>-status
    <prefix>-deadletters-g<n>           alias <prefix>-deadletters

A document stands in the index of its own day, not in the newest one: written again, it meets itself there, because an id is
unique within one index only. Retention deletes whole days, and no statuses. A status is put in the place of the one before under
an external version (offset + 1), and deleted by a tombstone under one: what comes again or late is refused by the server as
stale, for ten minutes also after a deletion. Its id is shard and key: see documents, [A document a shard].

Mappings are strict, so that no field comes to be by chance; `details` and what differs are `flattened`, because they have names
without number. What has no field of its own (members that a newer writer adds, values that can't be indexed) is kept in `rest`,
unindexed, so that an answer is the whole event.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from controlplane.projection.documents import (
    DEEPEST,
    DeadLetter,
    EventDocument,
    MetricDocument,
    StatusDocument,
    rfc3339,
)

Json = dict[str, Any]

VERSION: Final = 2
"""Of the mappings below. Indices of another one must be rebuilt."""
KINDS: Final = ("projection", "events", "metrics", "status", "deadletters")
LONGEST: Final = 8191
"""Characters of a value or name in `details` that can be searched exactly; Lucene takes 32766 bytes."""
LONGEST_TOKEN: Final = 255
SEPARATOR: Final = "\x1f"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = timedelta(days=1)
_DAY_US: Final = 86_400_000_000
_NAME: Final = re.compile(r"-g(\d+)(?:-(\d{4})\.(\d\d)\.(\d\d))?$")
_KEYWORDS: Final = ("id", "tenant", "event_type", "service_name", "status", "setting", "actor")
_IDENTS: Final = ("correlation_id", "causation_id")
_DIFFERENCES: Final = ("drift", "muted")
_NUMBERS: Final = ("generation", "revision", "shard")
_encode: Final = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Action:
    """One document to be created where it isn't; with a version, to be put in the place of a lower one."""

    index: str
    id: str
    source: bytes
    """Empty: to be deleted."""
    version: int | None = None

    @property
    def line(self) -> bytes:
        """As a bulk says it."""
        about: Json = {"_index": self.index, "_id": self.id}
        if self.version is None:
            return b'{"create":%b}\n%b\n' % (_encode(about), self.source)
        head = _encode({**about, "version": self.version, "version_type": "external"})
        return b'{"index":%b}\n%b\n' % (head, self.source) if self.source else b'{"delete":%b}\n' % head


class Names(NamedTuple):
    """Of the indices of one generation."""

    prefix: str
    generation: int

    @property
    def meta(self) -> str:
        """Positions."""
        return f"{self.prefix}-projection-g{self.generation}"

    @property
    def statuses(self) -> str:
        """The newest status of each setting."""
        return f"{self.prefix}-status-g{self.generation}"

    @property
    def dead_letters(self) -> str:
        """Dead letters."""
        return f"{self.prefix}-deadletters-g{self.generation}"

    def of_day(self, kind: str, at_us: int) -> str:
        """The index that a document of this time is in."""
        day = _EPOCH + timedelta(days=at_us // _DAY_US)
        return f"{self.prefix}-{kind}-g{self.generation}-{day.year:04}.{day.month:02}.{day.day:02}"

    def all_of(self, kind: str) -> str:
        """A pattern for all days."""
        return f"{self.prefix}-{kind}-g{self.generation}-*"

    def alias_of(self, index: str) -> str:
        """What people call the index."""
        return f"{self.prefix}-{index[len(self.prefix) + 1 :].partition('-')[0]}"


def generation_of(index: str) -> int | None:
    """The generation that an index is of; None when it isn't one of ours."""
    found = _NAME.search(index)
    return int(found[1]) if found else None


def day_of(index: str) -> tuple[int, int] | None:
    """The times an index may hold, Unix microseconds, the end excluded; None for one without a day."""
    found = _NAME.search(index)
    if found is None or found[2] is None:
        return None
    day = (datetime(int(found[2]), int(found[3]), int(found[4]), tzinfo=UTC) - _EPOCH) // _DAY
    return day * _DAY_US, (day + 1) * _DAY_US


def templates(prefix: str) -> dict[str, Json]:
    """Index templates by name: what every index of a kind is made like."""
    return {
        f"{prefix}-{kind}": {
            "index_patterns": [f"{prefix}-{kind}-g*"],
            "priority": 200,
            "version": VERSION,
            "template": {
                "settings": {**_SETTINGS, **_MORE_SETTINGS.get(kind, {})},
                "mappings": {"_meta": {"version": VERSION}, **_MAPPINGS[kind]},
            },
        }
        for kind in KINDS
    }


def event_action(names: Names, event: EventDocument) -> Action:
    """An event as it is stored. Raises UnicodeEncodeError for text that is none."""
    whole = msgspec.json.decode(event.body)
    source = {name: whole[name] for name in _KEYWORDS if name in whole}
    source |= {name: whole[name] for name in _IDENTS if isinstance(whole.get(name), str)}
    source |= {name: whole[name] for name in _NUMBERS if _is_long(whole.get(name))}
    if "details" in whole and _is_indexable(whole["details"]):
        source["details"] = whole["details"]
    moment = rfc3339(event.at_us)
    rest = {name: whole[name] for name in whole if name not in source and name != "timestamp"}
    if whole["timestamp"] != moment:
        rest["timestamp"] = whole["timestamp"]
    source |= {"timestamp": moment, "at_us": event.at_us, "text": event.text, **({"rest": rest} if rest else {})}
    return Action(names.of_day("events", event.at_us), event.id, _encode(source))


def event_of(source: Mapping[str, Any]) -> Json:
    """The event as it stands in the journal."""
    event: Json = {name: source[name] for name in source if name not in ("at_us", "text", "rest")}
    event |= source.get("rest", {})
    return event


def metric_action(names: Names, metric: MetricDocument) -> Action:
    """A metric as it is stored."""
    tags = msgspec.json.decode(metric.tags)
    source = {
        "id": metric.id,
        "tenant": metric.tenant,
        "metric_type": metric.metric_type,
        "timestamp": rfc3339(metric.at_us),
        "at_us": metric.at_us,
        "service_name": metric.service_name,
        "value": metric.value,
        "labels": [label(name, value) for name, value in tags.items()],
        "series": SEPARATOR.join((metric.service_name, metric.metric_type, metric.tags)),
    }
    if metric.extra is not None:
        source["rest"] = msgspec.json.decode(metric.extra)
    return Action(names.of_day("metrics", metric.at_us), metric.id, _encode(source))


def metric_of(source: Mapping[str, Any]) -> Json:
    """The metric as it stands in the journal."""
    _, _, tags = series_of(source["series"])
    names = ("id", "metric_type", "timestamp", "service_name", "value", "tenant")
    metric: Json = {name: source[name] for name in names} | {"tags": tags}
    metric |= source.get("rest", {})
    return metric


def status_action(names: Names, status: StatusDocument) -> Action:
    """What a shard says of a setting, as it is stored. Raises UnicodeEncodeError for text that is none."""
    if status.body is None:
        return Action(names.statuses, status.id, b"", status.version)
    told = msgspec.json.decode(status.body)
    source = {name: told[name] for name in told if name not in _DIFFERENCES or _is_indexable(told[name])}
    rest = {name: told[name] for name in told if name not in source}
    source |= {
        "shard": status.shard,
        "condition": status.conditions,
        "text": status.text,
        **({"rest": rest} if rest else {}),
    }
    return Action(names.statuses, status.id, _encode(source), status.version)


def status_of(source: Mapping[str, Any]) -> Json:
    """The status as it is answered."""
    status: Json = {name: source[name] for name in source if name not in ("shard", "condition", "rest")}
    status |= source.get("rest", {})
    return status


def label(name: str, value: str) -> str:
    """A tag as one word."""
    return f"{name}{SEPARATOR}{value}"


def series_of(series: str) -> tuple[str, str, dict[str, str]]:
    """Service, type and tags of a series."""
    service_name, metric_type, tags = series.split(SEPARATOR, 2)
    return service_name, metric_type, msgspec.json.decode(tags)


def dead_letter_action(names: Names, letter: DeadLetter) -> Action:
    """A record put aside."""
    source = {
        "stream": letter.stream,
        "shard": letter.shard,
        "offset": letter.offset,
        "key": letter.key,
        "reason": letter.reason,
        "size_bytes": len(letter.data),
        "data": base64.b64encode(letter.data).decode(),
    }
    return Action(names.dead_letters, f"{letter.stream}-{letter.shard}-{letter.offset}", _encode(source))


def _is_long(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_indexable(value: Any) -> bool:
    """Names in a `flattened` field have limits of their own; its separator is NUL."""
    if isinstance(value, dict):
        return all(name and "\0" not in name and len(name) <= LONGEST for name in value) and all(
            map(_is_indexable, value.values())
        )
    return all(map(_is_indexable, value)) if isinstance(value, list) else True


_KEYWORD: Final = {"type": "keyword"}
_LONG: Final = {"type": "long"}
_FREE: Final = {"type": "flattened", "ignore_above": LONGEST, "depth_limit": DEEPEST + 1}
_WORDS: Final = {"type": "text", "analyzer": "words", "norms": False}
_REST: Final = {"type": "object", "enabled": False}
_SETTINGS: Final[Json] = {
    "number_of_shards": 1,
    "auto_expand_replicas": "0-1",
    # Said, because an index without one isn't refreshed while nobody searches.
    "refresh_interval": "1s",
    "analysis": {
        "analyzer": {
            "words": {"type": "custom", "tokenizer": "words", "filter": ["lowercase", "asciifolding", "not_too_long"]}
        },
        "tokenizer": {"words": {"type": "pattern", "pattern": r"[^\p{L}\p{N}]+"}},
        "filter": {"not_too_long": {"type": "truncate", "length": LONGEST_TOKEN}},
    },
}
_MORE_SETTINGS: Final[dict[str, Json]] = {"status": {"gc_deletes": "10m"}}
_CONDITION: Final = {
    **dict.fromkeys(("type", "status", "reason"), _KEYWORD),
    "message": _WORDS,
    "since": {"type": "date"},
}
_ACTION: Final = {**dict.fromkeys(("step", "status"), _KEYWORD), "at": {"type": "date"}, "attempt": _LONG}
_MAPPINGS: Final[dict[str, Json]] = {
    "projection": {"dynamic": "strict", "properties": {"positions": _REST}},
    "events": {
        "dynamic": "strict",
        "_source": {"excludes": ["text"]},
        "properties": {
            **dict.fromkeys((*_KEYWORDS, *_IDENTS), _KEYWORD),
            **dict.fromkeys((*_NUMBERS, "at_us"), _LONG),
            "timestamp": {"type": "date"},
            "details": _FREE,
            "text": _WORDS,
            "rest": _REST,
        },
    },
    "metrics": {
        "dynamic": "strict",
        "properties": {
            **dict.fromkeys(("id", "tenant", "metric_type", "service_name", "labels", "series"), _KEYWORD),
            "at_us": _LONG,
            "timestamp": {"type": "date"},
            "value": {"type": "double"},
            "rest": _REST,
        },
    },
    "status": {
        "dynamic": "strict",
        "_source": {"excludes": ["text"]},
        "properties": {
            **dict.fromkeys(
                ("setting", "tenant", "setting_type", "name", "service_name", "phase", "condition"), _KEYWORD
            ),
            **dict.fromkeys(("shard", "revision", "observed_generation"), _LONG),
            "conditions": {"properties": _CONDITION},
            "external": {**_KEYWORD, "ignore_above": LONGEST},
            **dict.fromkeys(_DIFFERENCES, _FREE),
            "last_action": {"properties": _ACTION},
            "next_at": {"type": "date"},
            "text": _WORDS,
            "rest": _REST,
        },
    },
    "deadletters": {
        "dynamic": "strict",
        "properties": {
            "stream": _KEYWORD,
            **dict.fromkeys(("shard", "offset", "size_bytes"), _LONG),
            **{name: {**_KEYWORD, "ignore_above": 1024} for name in ("key", "reason")},
            "data": {"type": "binary"},
        },
    },
}

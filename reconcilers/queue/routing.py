"""Routes: which messages go where. Pure.

Note [The table of routes]. Routes must be known to every replica's router, and a router must say which it goes by. So
their definitions are records of a compacted topic, one per route, in the cluster that they route in (`InstallRoute` writes
one, `RemoveRoute` its tombstone), and with each committed offset a router writes which routes it went by and what it
counted (`progress`). Whether a route is in effect is read there, from what was done and not from what was meant.

A record is `{"route": definition, "start": {partition: offset}}`. `start` is where the source ended when its first route
was installed: a router begins there, or where the group stands if that is further, so that no message after it is left out
and none before it is taken.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from schemas import queue

ROUTE: Final = "queue.route"
PROGRESS: Final = "v2"
DEAD: Final = "coreplane.dead."
"""Prefix of the headers that a dead letter has beside its own."""
TABLES: Final = "coreplane.routes."
ROUTERS: Final = "coreplane.router."
CANARIES: Final = "coreplane.canary."
"""How names of the daemon's own topics and groups begin."""
ABSENT: Final = object()
LONGEST: Final = 249

Headers = Sequence[tuple[str, bytes]]


class Message(NamedTuple):
    """What a route decides by."""

    key: bytes | None
    value: bytes | None
    headers: Headers


class NotJson(ValueError):
    """A route asks for a path in a message that isn't JSON."""


# --- names ---------------------------------------------------------------------------------------------------------------


def table_topic(tenant: str, target: str) -> str:
    """The topic that holds the table of a target."""
    return _bounded(f"{TABLES}{tenant}.{target}")


def router_group(tenant: str, target: str) -> str:
    """The consumer group by which the routers of all replicas share the partitions."""
    return _bounded(f"{ROUTERS}{tenant}.{target}")


def canary_topic(tenant: str, target: str) -> str:
    """The topic of the messages by which the time of delivery is measured."""
    return _bounded(f"{CANARIES}{tenant}.{target}")


def transactional_id(group: str, topic: str, partition: int) -> str:
    """Fixed per source partition: whoever starts a producer with it fences the router that had the partition before."""
    return f"{group}.{topic}.{partition}"


def _bounded(name: str) -> str:
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 17]}.{hashlib.sha256(name.encode()).hexdigest()[:16]}"


# --- definitions -----------------------------------------------------------------------------------------------------------


def route_name(setting: str, _value: queue.Route) -> str:
    """A route is known by the name of its setting."""
    return setting


def definition(_setting: str, value: queue.Route) -> str:
    """The route as it stands in its record: JSON, always the same for the same declaration."""
    body = value.model_dump(mode="json", by_alias=True, exclude={"target"}, exclude_none=True)
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def digest(text: str) -> str:
    """Short name of a definition in a router's progress."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def record(text: str, start: Mapping[int, int]) -> bytes:
    """What is written to the table."""
    return json.dumps({"route": json.loads(text), "start": {str(part): at for part, at in start.items()}}).encode()


@dataclass(frozen=True, slots=True)
class Installed:
    """A record of the table. `text`: the definition in its one form."""

    name: str
    text: str
    digest: str
    route: queue.Route
    start: Mapping[int, int]
    takes: Callable[[Message], bool]


def installed(name: str, content: bytes) -> Installed | None:
    """A record as it is understood; None when it is none of this version's."""
    try:
        body = json.loads(content)
        route = queue.Route.model_validate({"target": "main", **body["route"]})
        start = {int(part): int(at) for part, at in body["start"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    text = definition(name, route)
    return Installed(name, text, digest(text), route, start, predicate(route.when))


# --- predicates ------------------------------------------------------------------------------------------------------------

_ORDER: Final = MappingProxyType({"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le})


def predicate(when: queue.When) -> Callable[[Message], bool]:
    """Whether a message is meant. Raises `NotJson`."""
    headers = [(name, _test(test)) for name, test in when.headers.items()]
    paths = [(path.split("/")[1:], _test(test)) for path, test in when.document.items()]
    key = None if when.key is None else _test(when.key)

    def takes(message: Message) -> bool:
        if key is not None and not key(_text(message.key)):
            return False
        held = {name: _text(value) for name, value in message.headers} if headers else {}
        if not all(test(held.get(name, ABSENT)) for name, test in headers):
            return False
        if not paths:
            return True
        document = _document(message.value)
        return all(test(_at(document, path)) for path, test in paths)

    return takes


def _text(value: bytes | None) -> Any:
    return ABSENT if value is None else value.decode("utf-8", "replace")


def _document(value: bytes | None) -> Any:
    try:
        return json.loads(value or b"")
    except ValueError as exc:
        msg = "the message isn't JSON"
        raise NotJson(msg) from exc


def _at(document: Any, path: Sequence[str]) -> Any:
    for step in path:
        if isinstance(document, dict):
            document = document.get(step, ABSENT)
        elif isinstance(document, list) and step.isdecimal() and int(step) < len(document):
            document = document[int(step)]
        else:
            return ABSENT
    return document


def _test(test: Any) -> Callable[[Any], bool]:
    if not isinstance(test, queue.Test):
        return lambda value: _equal(value, test)
    checks = list(_checks(test))
    return lambda value: all(check(value) for check in checks)


def _checks(test: queue.Test) -> Iterable[Callable[[Any], bool]]:
    if test.exists is not None:
        yield lambda value: (value is not ABSENT) == test.exists
    if test.among is not None:
        some = test.among
        yield lambda value: any(_equal(value, one) for one in some)
    if "ne" in test.model_fields_set:
        yield lambda value: not _equal(value, test.ne)
    if test.prefix is not None:
        prefix = test.prefix
        yield lambda value: isinstance(value, str) and value.startswith(prefix)
    yield from (
        _bounded_by(compare, getattr(test, name)) for name, compare in _ORDER.items() if getattr(test, name) is not None
    )


def _bounded_by(compare: Callable[[Any, Any], bool], bound: float) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        number = _number(value)
        return number is not None and compare(number, bound)

    return check


def _number(value: Any) -> float | None:
    """Headers and keys are text: a number in them counts as one."""
    if isinstance(value, bool) or value is ABSENT:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _equal(value: Any, wanted: Any) -> bool:
    """True isn't 1; what is text in a header equals the number or truth that it spells."""
    if isinstance(value, str) and not isinstance(wanted, str):
        return value == json.dumps(wanted)
    return value is not ABSENT and isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


# --- the table -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """The routes of all sources."""

    routes: Mapping[str, Installed] = field(default_factory=dict)

    def changed(self, name: str, content: bytes | None) -> Table:
        """The table with one more record; a tombstone or one that isn't understood takes the route away."""
        one = None if content is None else installed(name, content)
        rest = {other: route for other, route in self.routes.items() if other != name}
        return Table(rest if one is None else {**rest, name: one})

    @property
    def sources(self) -> frozenset[str]:
        """Topics to read."""
        return frozenset(one.route.source for one in self.routes.values())

    def of(self, source: str) -> tuple[Installed, ...]:
        """The routes of a source, highest priority first."""
        mine = [one for one in self.routes.values() if one.route.source == source]
        return tuple(sorted(mine, key=lambda one: (-one.route.priority, one.name)))

    def begin(self, source: str, partition: int) -> int:
        """Where the routes of a source begin; a partition that was added later from its first message."""
        return min((one.start.get(partition, 0) for one in self.of(source)), default=0)

    def transactional(self, source: str) -> bool:
        """True when a route of the source is to deliver exactly once: then all of them do."""
        return any(one.route.delivery == "exactly_once" for one in self.of(source))


def taking(routes: Sequence[Installed], message: Message) -> tuple[list[Installed], Installed | None]:
    """(the routes that take it, the route that couldn't tell because it isn't JSON and has a place for such messages)."""
    found: list[Installed] = []
    unsure: Installed | None = None
    for one in routes:
        if found and one.route.priority < found[0].route.priority:
            break
        try:
            if one.takes(message):
                found.append(one)
        except NotJson:
            if unsure is None and one.route.on_error.dead_letter is not None:
                unsure = one
    return found, None if found else unsure


# --- progress --------------------------------------------------------------------------------------------------------------


class Count(NamedTuple):
    """Messages of one source partition by one route, since it was installed there."""

    routed: int = 0
    dead: int = 0
    repeated: int = 0
    """Among them: those that a router which crashed may have delivered already."""
    failed: int = 0
    """Tries to deliver one message that a destination refused."""


class Progress(NamedTuple):
    """What a router wrote beside an offset that it committed."""

    counts: Mapping[str, Count]
    """By the digests of the routes that it went by."""
    until: int = 0
    """Messages from the offset to this one are being delivered, or were when the router crashed. 0: none."""


def progress(routes: Iterable[Installed], counts: Mapping[str, Count], until: int = 0) -> str:
    """What stands beside a committed offset: `v2 until digest:routed:dead:repeated:failed …`."""
    rows = sorted((one.digest, counts.get(one.digest, Count())) for one in routes)
    return " ".join([PROGRESS, str(until), *(":".join(map(str, (name, *count))) for name, count in rows)])


def progress_in(text: str | None) -> Progress:
    """As it was written; nothing when it isn't a router's."""
    version, *rows = (text or "").split(" ")
    if version != PROGRESS:
        return Progress({})
    fields = [row.split(":") for row in rows[1:]]
    most = len(Count._fields)  # other versions write more or fewer
    return Progress({name: Count(*map(int, numbers[:most])) for name, *numbers in fields}, int(rows[0]))


def dead_letter(
    headers: Headers, route: str, cause: str, place: tuple[str, int, int], at_ms: int
) -> list[tuple[str, bytes]]:
    """Its own headers, and why and from where it came."""
    topic, partition, offset = place
    told = {"route": route, "cause": cause, "topic": topic, "partition": partition, "offset": offset, "at": at_ms}
    return [*living(headers), *((f"{DEAD}{name}", str(value).encode()) for name, value in told.items())]


def living(headers: Headers) -> list[tuple[str, bytes]]:
    """The headers that the message had before it was dead."""
    return [(name, value) for name, value in headers if not name.startswith(DEAD)]

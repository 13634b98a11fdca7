"""What must hold after every run, from what clients were told, what stands in the topics and what Redis did.

Nothing here asks the daemons about themselves, and the log is read and folded by other code than theirs: a plain consumer of
kafka-python, and a fold of twenty lines. `violations` names what is broken, one line each; the laws are those of README's
"What holds".
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgpack
from kafka import KafkaConsumer, TopicPartition

from schemas.names import event_id
from tests.e2e.fault_clients import TTL_S, History, Streamed, Told
from tests.e2e.fault_cluster import Write

ENDS = frozenset({"ActionSucceeded", "ActionFailed", "ActionUnknown"})
BATCHES = 5000
"""More batches of effects than one owner ever begins in a run."""

Json = dict[str, Any]


class Event(NamedTuple):
    """One record of the events topic."""

    shard: int
    offset: int
    at: float
    said: Json


@dataclass
class Topics:
    """Everything that stands in the topics of a log."""

    requests: list[tuple[int, Json]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    """By shard and offset."""
    raw: list[bytes] = field(default_factory=list)


def read_topics(servers: str, prefix: str) -> Topics:
    """By a consumer that knows nothing of us."""
    found = Topics()
    for record in _records(servers, f"{prefix}.settings", "read_uncommitted"):
        found.requests.append((record.offset, msgpack.unpackb(record.value)))
        found.raw.append(record.value)
    for record in _records(servers, f"{prefix}.events", "read_committed"):
        said = msgpack.unpackb(record.value)
        found.events.append(Event(record.partition, record.offset, record.timestamp / 1000, said))
        found.raw.append(record.value)
    for name in ("status", "metrics"):
        found.raw += [record.value or b"" for record in _records(servers, f"{prefix}.{name}", "read_committed")]
    found.events.sort(key=lambda event: event[:2])
    return found


def _records(servers: str, topic: str, isolation: str) -> Iterator[Any]:
    consumer = KafkaConsumer(bootstrap_servers=servers, isolation_level=isolation, enable_auto_commit=False)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for records in consumer.poll(timeout_ms=500).values():
                yield from records
    finally:
        consumer.close()


@dataclass
class Folded:
    """The settings log, folded by the rules as they are written down."""

    entries: dict[str, Json] = field(default_factory=dict)
    verdicts: dict[str, dict[str, int] | None] = field(default_factory=dict)
    """request_id → revisions by key; None: refused."""
    values: dict[str, dict[int, Any]] = field(default_factory=lambda: defaultdict(dict))
    """Key → revision → the value that was declared."""


def folded(requests: Iterable[tuple[int, Json]]) -> Folded:
    state = Folded()
    for offset, request in requests:
        if request["request_id"] in state.verdicts:
            continue
        changes = request["changes"]
        accepted = all(_acceptable(state.entries.get(change["key"]), change) for change in changes)
        state.verdicts[request["request_id"]] = (
            {change["key"]: _change(state, change, offset + 1) for change in changes} if accepted else None
        )
    return state


def _acceptable(entry: Json | None, change: Json) -> bool:
    expected, revision = change.get("expected"), entry["revision"] if entry else 0
    if expected is not None and expected != revision:
        return False
    if change["op"] == "retire":
        return entry is not None
    return change["op"] == "declare" or (entry is not None and entry["retiring"] and expected is not None)


def _change(state: Folded, change: Json, revision: int) -> int:
    key, entry = change["key"], state.entries.get(change["key"])
    if change["op"] == "forget":
        del state.entries[key]
    elif change["op"] == "retire":
        assert entry is not None
        if entry["retiring"]:
            return int(entry["revision"])
        state.entries[key] = {**entry, "revision": revision, "retiring": True}
    else:
        if entry is not None and not entry["retiring"] and entry["body"] == change["body"]:
            return int(entry["revision"])
        state.entries[key] = {"revision": revision, "retiring": False, "body": change["body"]}
        state.values[key][revision] = change["body"]["value"]
    return revision


@dataclass
class Evidence:
    """What a run left behind."""

    history: History
    topics: Topics
    writes: Sequence[Write]
    replicas: Sequence[Mapping[str, tuple[int, Any]]]
    """Of each: key → revision and value, as it tells it at the end."""
    declared: Mapping[str, list[str]]
    """Users as they must be in Redis, by rule; made by hand on the same server."""
    users: Mapping[str, list[str]]
    """Users as they are."""
    secrets: Sequence[str]
    texts: Mapping[str, str]
    """Logs and metrics, by name."""
    restarted_at: float
    """From then on only restarts happened, of a world that had converged."""


def violations(found: Evidence) -> list[str]:
    """Everything that is broken."""
    state = folded(found.topics.requests)
    return [
        *acknowledged_writes_are_in_the_log(state, found.history.told),
        *counters_lost_no_update(state, found.history.told),
        *replicas_are_identical(state, found.replicas),
        *replay_caused_no_effect(found),
        *only_the_newest_owner_begins(found.topics.events),
        *every_effect_has_one_start_and_one_end(found.topics.events),
        *redis_did_what_was_begun(found.topics.events, found.writes),
        *streams_gave_all_in_order(found.topics.events, found.history.streamed),
        *redis_is_as_declared(state, found),
        *tenants_are_apart(found.topics),
        *no_secret_is_told(found),
    ]


def acknowledged_writes_are_in_the_log(state: Folded, told: Sequence[Told]) -> Iterator[str]:
    for one in told:
        verdict = state.verdicts.get(f"{one.tenant}/{one.request_id}", {})
        if not one.accepted:
            if verdict:
                yield f"P1 {one.key}: refused to the client, accepted in the log: {one}"
        elif verdict is None:
            yield f"P1 {one.key}: accepted to the client, refused in the log: {one}"
        elif verdict and verdict.get(one.key) != one.revision:
            yield f"P1 {one.key}: told revision {one.revision}, the log says {verdict}"
        elif not verdict and state.values[one.key].get(one.revision, one.value) != one.value:
            yield f"P1 {one.key}: revision {one.revision} was acknowledged and isn't in the log"


def counters_lost_no_update(state: Folded, told: Sequence[Told]) -> Iterator[str]:
    accepted = Counter(one.key for one in told if one.accepted and "cache.namespace/" in one.key)
    for key, values in state.values.items():
        if "cache.namespace/" not in key:
            continue
        numbers = [value["layers"][0]["ttl_s"] - TTL_S for _, value in sorted(values.items())]
        if numbers != list(range(len(numbers))):
            yield f"P2 {key}: an update was lost: {numbers}"
        if accepted[key] != len(numbers):
            yield f"P2 {key}: {accepted[key]} writes were accepted to clients, {len(numbers)} are in the log"


def replicas_are_identical(state: Folded, replicas: Sequence[Mapping[str, tuple[int, Any]]]) -> Iterator[str]:
    wanted = {key: (entry["revision"], entry["body"]["value"]) for key, entry in state.entries.items()}
    for number, replica in enumerate(replicas):
        wrong = {key for key in wanted.keys() | replica.keys() if wanted.get(key) != replica.get(key)}
        if wrong:
            yield f"P3 replica {number} differs from the log at {sorted(wrong)[:5]}"


def replay_caused_no_effect(found: Evidence) -> Iterator[str]:
    late = [event.said for event in found.topics.events if event.at >= found.restarted_at]
    begun = [said["setting"] for said in late if said["event_type"] == "ActionStarted"]
    if begun:
        yield f"P4 a restart of a converged world began effects: {begun[:5]}"
    yield from (f"P4 a restart wrote {one}" for one in found.writes if one.at >= found.restarted_at)


def only_the_newest_owner_begins(events: Sequence[Event]) -> Iterator[str]:
    """The id of a start is made of its owner's ShardTaken: that must be the last one before it."""
    tokens: dict[int, int] = {}
    for shard, offset, _, said in events:
        if said["event_type"] == "ShardTaken":
            tokens[shard] = offset
        elif said["event_type"] == "ActionStarted" and not _begun_by(tokens.get(shard, -1), shard, said):
            yield f"P5 shard {shard}, offset {offset}: begun by an owner that had lost the shard: {said['setting']}"


def _begun_by(token: int, shard: int, said: Json) -> bool:
    made = f"effect:{shard}:{token}:{said['setting']}"
    return any(said["id"] == event_id(made, number) for number in range(1, BATCHES))


def every_effect_has_one_start_and_one_end(events: Sequence[Event]) -> Iterator[str]:
    twice = [id_ for id_, count in Counter(event.said["id"] for event in events).items() if count > 1]
    if twice:
        yield f"P5 {len(twice)} ids come twice: {twice[:3]}"
    under_way: dict[str, str] = {}
    for shard, offset, _, said in events:
        key, place = str(said.get("setting")), f"shard {shard}, offset {offset}, {said.get('setting')}"
        if said["event_type"] == "ActionStarted":
            if key in under_way:
                yield f"P5 {place}: begun while another effect was under way"
            under_way[key] = said["id"]
        elif said["event_type"] in ENDS and under_way.pop(key, None) != said["causation_id"]:
            yield f"P5 {place}: {said['event_type']} ends what wasn't under way"
    yield from (f"P5 {key}: begun and never ended" for key in under_way)


def redis_did_what_was_begun(events: Sequence[Event], writes: Sequence[Write]) -> Iterator[str]:
    """Each write in Redis has a committed start of its own before it."""
    starts: defaultdict[str, list[float]] = defaultdict(list)
    for event in events:
        if event.said["event_type"] == "ActionStarted":
            starts[event.said["setting"].rpartition("/")[2]].append(event.at)
    done: Counter[str] = Counter()
    for write in sorted(writes, key=lambda write: write.at):
        name = write.prefix.removesuffix(":")
        done[name] += 1
        if done[name] > sum(at <= write.at for at in starts[name]):
            yield f"P5 Redis wrote {name} at {write.at}, which nobody had begun: {write.command[:3]}"


def streams_gave_all_in_order(events: Sequence[Event], streamed: Sequence[Streamed]) -> Iterator[str]:
    places = {event.said["id"]: event[:2] for event in events}
    by_tenant: defaultdict[str, defaultdict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        by_tenant[event.said["tenant"]][event.shard].append(event.offset)
    whole: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for connection in streamed:
        given = [places.get(id_) for id_ in connection.ids]
        if None in given:
            yield f"P6 {connection.tenant}: an event was streamed that isn't in the log"
            continue
        whole[connection.tenant].update(place for place in given if place)
        for shard, offsets in by_tenant[connection.tenant].items():
            mine = [place[1] for place in given if place and place[0] == shard]
            between = [offset for offset in offsets if mine and mine[0] <= offset <= mine[-1]]
            if mine != between:
                yield f"P6 {connection.tenant}, shard {shard}: {len(mine)} events of {len(between)}, or out of order"
    for tenant, seen in whole.items():
        missed = {(shard, o) for shard, offsets in by_tenant[tenant].items() for o in offsets} - seen
        if missed:
            yield f"P6 {tenant}: {len(missed)} events were never streamed, for example {sorted(missed)[:3]}"


def redis_is_as_declared(state: Folded, found: Evidence) -> Iterator[str]:
    if found.users != found.declared:
        names = [n for n in found.users.keys() | found.declared.keys() if found.users.get(n) != found.declared.get(n)]
        yield f"P7 users in Redis aren't as declared: {sorted(names)}"
    last = {write.prefix: " ".join(write.command) for write in sorted(found.writes, key=lambda write: write.at)}
    for key, entry in state.entries.items():
        value = entry["body"]["value"]
        if "cache.namespace/" in key and str(value["layers"][0]["ttl_s"]) not in last.get(value["prefix"], ""):
            yield f"P7 {key}: Redis holds {last.get(value['prefix'])}"


def tenants_are_apart(topics: Topics) -> Iterator[str]:
    for offset, request in topics.requests:
        asked_by = request["request_id"].partition("/")[0].removeprefix("forget-")
        for change in request["changes"]:
            if change["key"].partition("/")[0] != asked_by:
                yield f"P8 offset {offset}: {request['request_id']} changed {change['key']}"
    for event in topics.events:
        setting = event.said.get("setting")
        if setting and setting.partition("/")[0] != event.said["tenant"]:
            yield f"P8 shard {event.shard}, offset {event.offset}: {event.said['tenant']} is told of {setting}"


def no_secret_is_told(found: Evidence) -> Iterator[str]:
    for number, secret in enumerate(found.secrets):
        if any(secret.encode() in raw for raw in found.topics.raw):
            yield f"P9 secret {number} stands in a topic"
        yield from (f"P9 secret {number} stands in {name}" for name, text in found.texts.items() if secret in text)


def fresh_prefix() -> str:
    """Of the topics of one run."""
    return f"t{uuid.uuid4().hex}"

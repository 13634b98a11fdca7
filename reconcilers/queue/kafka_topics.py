"""Topics over the administration client: what is there, and the steps. Runs in the client's thread; every reply is raw.

Note [Settling]. A broker answers from its image of the metadata, which lags behind what the controller did, by up to half a
minute after a thousand creations. Believed, it would say: absent (so create again), or as before (so drift). So what we
did is kept until a look shows it, for SETTLING_S at most: of a topic that we made its id, of one that we changed what it
should show. Ids that we deleted are never believed again, however long they are shown. All of it is the memory of one
process; the next owner of the shard may ask for a creation again and is answered that the topic exists.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from reconcilers.contract import SUCCEEDED, BackendError, Outcome, TransientError, failed
from reconcilers.discovery import matches
from reconcilers.queue import configs
from reconcilers.queue.admin import REQUEST_MS, ended, messages, partition, refusal, send
from reconcilers.queue.model import OWNED_CONFIG, SETTLING_S, TOPIC_ID, Held, ObservedTopic, Topic, memory_of
from reconcilers.queue.steps import ChangeConfig, CreateTopic, DeleteTopic, RaisePartitions, ReassignReplicas

TOPIC_RESOURCE: Final = 2
SET, RESET = 0, 1
DYNAMIC_TOPIC_CONFIG: Final = 1
UNKNOWN_TOPIC: Final = frozenset({3, 100})
MADE: Final = "Made"
"""Reason of an error that passes as soon as the broker shows the topic."""
EXISTS: Final = 36
CONFIG_KINDS: Final = ("UNKNOWN", "BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST", "CLASS", "PASSWORD")
MOST_DELETED: Final = 10_000

Check = Callable[[], None]
"""Raises `NotSent` when nothing may be begun any more; called directly before a request that changes something."""


@dataclass(slots=True)
class _Expected:
    """What a topic that we touched is to show."""

    until: float
    topic_id: str
    made: bool = False
    config: dict[str, str] = field(default_factory=dict)
    partitions: int | None = None

    def missing(self, shown: ObservedTopic | None) -> str | None:
        """What a look doesn't show yet; None when it is all there."""
        if shown is None or (self.made and shown.topic_id != self.topic_id):
            return "made, and not shown yet"
        if self.partitions is not None and len(shown.replicas) < self.partitions:
            return "more partitions, not shown yet"
        for name, value in self.config.items():
            held = shown.config.get(name)
            if held is not None and not configs.same(value, held.value, held.kind):
                return "other configurations, not shown yet"
        return None


class Topics:
    """The topics of one cluster, and what we did to them lately. Of one thread at a time."""

    def __init__(self) -> None:
        self._expected: dict[str, _Expected] = {}
        self._deleted: dict[str, None] = {}

    # --- looking -------------------------------------------------------------------------------------------------------

    def observe(self, client: Any, wanted: Mapping[str, Topic | None]) -> dict[str, ObservedTopic | BackendError]:
        """Topic → what is there. Missing: absent."""
        reply = send(client, _metadata_request(wanted))
        brokers = tuple(sorted(broker.node_id for broker in reply.brokers))
        found = self._described(reply.topics, brokers)
        asked = {name: tuple(topic.config) for name, topic in wanted.items() if topic is not None and topic.config}
        held = configs_of(client, {name: names for name, names in asked.items() if _there(found.get(name))})
        found = {name: _with_config(one, held.get(name)) for name, one in found.items()}
        found = _with_moves(client, found, wanted)
        for name in list(self._expected):
            if name in wanted:
                self._settle(name, found)
        return found

    def discover(self, client: Any, match: str) -> dict[str, ObservedTopic]:
        """The topics that are meant, with everything that is set on them."""
        request = messages().MetadataRequest(topics=None, allow_auto_topic_creation=False)
        rows = [row for row in send(client, request).topics if matches(row.name, match, reserved=row.is_internal)]
        found = self._described(rows, ())
        held = configs_of(client, dict.fromkeys(name for name, one in found.items() if _there(one)))
        return {
            name: replace(one, config=held.get(name, {}))
            for name, one in found.items()
            if isinstance(one, ObservedTopic)
        }

    def _described(self, rows: Iterable[Any], brokers: tuple[int, ...]) -> dict[str, ObservedTopic | BackendError]:
        found: dict[str, ObservedTopic | BackendError] = {}
        for row in rows:
            topic_id = str(row.topic_id)
            if row.error_code in UNKNOWN_TOPIC or topic_id in self._deleted:
                continue
            error = refusal(row.error_code, None, row.name)
            if error is not None:
                found[row.name] = error
                continue
            partitions = sorted(row.partitions, key=lambda part: part.partition_index)
            replicas = tuple(tuple(part.replica_nodes) for part in partitions)
            behind = any(len(part.isr_nodes) < len(part.replica_nodes) for part in partitions)
            found[row.name] = ObservedTopic(topic_id, replicas, brokers=brokers, behind=behind)
        return found

    def _settle(self, name: str, found: dict[str, ObservedTopic | BackendError]) -> None:
        expected, shown = self._expected[name], found.get(name)
        if isinstance(shown, BackendError):
            return
        missing = expected.missing(shown)
        if missing is None or time.monotonic() > expected.until:
            del self._expected[name]
        elif shown is None:
            found[name] = ObservedTopic(expected.topic_id, settling=missing)
        else:
            found[name] = replace(shown, settling=missing)

    # --- steps ---------------------------------------------------------------------------------------------------------

    def create(self, client: Any, steps: Sequence[CreateTopic], check: Check) -> list[Outcome]:
        """Make topics, each for itself. One that is there already is looked at again: it may be somebody else's."""
        row = messages().CreateTopicsRequest.CreatableTopic
        rows = [
            row(
                name=step.external.name,
                num_partitions=step.partitions or -1,
                replication_factor=step.replication_factor or -1,
                assignments=[],
                configs=[row.CreatableTopicConfig(name=name, value=value) for name, value in step.config],
            )
            for step in steps
        ]
        request = messages().CreateTopicsRequest(topics=rows, timeout_ms=REQUEST_MS, validate_only=False)
        check()
        reply = {row.name: row for row in send(client, request).topics}
        return [self._created(step, reply[step.external.name]) for step in steps]

    def _created(self, step: CreateTopic, row: Any) -> Outcome:
        name = step.external.name
        if row.error_code == EXISTS:
            return failed(TransientError(f"{name} exists already", reason="TopicAlreadyExists", retry_after_s=0.5))
        error = refusal(row.error_code, row.error_message, name)
        if error is not None:
            return failed(error)
        topic_id, config = str(row.topic_id), dict(step.config)
        self._expect(name, topic_id, made=True, config=config, partitions=step.partitions)
        memory = memory_of(topic_id, Topic(name, step.partitions, step.replication_factor, config))
        return replace(SUCCEEDED, details={TOPIC_ID: topic_id}, remember=memory)

    def change(self, client: Any, steps: Sequence[ChangeConfig], check: Check) -> list[Outcome]:
        """Set configurations and give others back. Both may be repeated."""
        rows = [
            (
                TOPIC_RESOURCE,
                step.external.name,
                [*((name, SET, value) for name, value in step.values), *((name, RESET, None) for name in step.reset)],
            )
            for step in steps
        ]
        check()
        reply = send(client, messages().IncrementalAlterConfigsRequest(resources=rows, validate_only=False))
        errors = {
            row.resource_name: refusal(row.error_code, row.error_message, row.resource_name) for row in reply.responses
        }
        return ended(steps, lambda step: errors[step.external.name], self._changed)

    def _changed(self, step: ChangeConfig) -> Outcome:
        self._expect(step.external.name, "", config=dict(step.values))
        return replace(SUCCEEDED, remember={OWNED_CONFIG: ",".join(step.declared)})

    def raise_partitions(self, client: Any, steps: Sequence[RaisePartitions], check: Check) -> list[Outcome]:
        """More partitions. That there are so many already is what is wanted."""
        row = messages().CreatePartitionsRequest.CreatePartitionsTopic
        rows = [row(name=step.external.name, count=step.count, assignments=None) for step in steps]
        check()
        request = messages().CreatePartitionsRequest(topics=rows, timeout_ms=REQUEST_MS, validate_only=False)
        reply = {row.name: row for row in send(client, request).results}
        errors = {name: refusal(row.error_code, row.error_message, name) for name, row in reply.items()}
        return ended(steps, lambda step: errors[step.external.name], self._raised)

    def _raised(self, step: RaisePartitions) -> Outcome:
        self._expect(step.external.name, "", partitions=step.count)
        return SUCCEEDED

    def delete(self, client: Any, steps: Sequence[DeleteTopic], check: Check) -> list[Outcome]:
        """Delete by id: a topic that somebody made anew under the name stays."""
        row = messages().DeleteTopicsRequest.DeleteTopicState
        rows = [row(name=None, topic_id=uuid.UUID(step.topic_id)) for step in steps]
        check()
        reply = send(client, messages().DeleteTopicsRequest(topics=rows, timeout_ms=REQUEST_MS))
        answers = {str(row.topic_id): row for row in reply.responses}

        def wrong(step: DeleteTopic) -> BackendError | None:
            row = answers[step.topic_id]
            gone = row.error_code in UNKNOWN_TOPIC
            return None if gone else refusal(row.error_code, row.error_message, step.external.name)

        return ended(steps, wrong, self._gone)

    def _gone(self, step: DeleteTopic) -> Outcome:
        self._expected.pop(step.external.name, None)
        self._deleted[step.topic_id] = None
        while len(self._deleted) > MOST_DELETED:
            del self._deleted[next(iter(self._deleted))]
        return SUCCEEDED

    def _expect(
        self,
        name: str,
        topic_id: str,
        *,
        made: bool = False,
        config: Mapping[str, str] | None = None,
        partitions: int | None = None,
    ) -> None:
        until = time.monotonic() + SETTLING_S
        before = self._expected.get(name)
        if made or before is None:
            self._expected[name] = _Expected(until, topic_id, made, dict(config or {}), partitions)
            return
        before.until = until
        before.config |= config or {}
        before.partitions = partitions or before.partitions


def reassign(client: Any, steps: Sequence[ReassignReplicas], check: Check) -> list[Outcome]:
    """Begin to move replicas. The same again is no new beginning."""
    moves = {partition(step.external.name, part): list(on) for step in steps for part, on in step.replicas}
    check()
    errors = client.alter_partition_reassignments(moves)
    outcomes = []
    for step in steps:
        wrong = [error for part, _ in step.replicas if (error := errors.get(partition(step.external.name, part)))]
        error = refusal(wrong[0].errno, None, step.external.name) if wrong else None
        outcomes.append(SUCCEEDED if error is None else failed(error))
    return outcomes


def partitions_of(client: Any, topics: Iterable[str]) -> dict[str, int]:
    """Topic → number of its partitions; those that aren't there are left out."""
    reply = send(client, _metadata_request(topics))
    return {row.name: len(row.partitions) for row in reply.topics if row.error_code == 0}


def ensure(client: Any, name: str, config: Mapping[str, str]) -> None:
    """Make a topic of ours with one partition, where it is missing; `TransientError` until it is shown."""
    row = messages().CreateTopicsRequest.CreatableTopic
    configs = [row.CreatableTopicConfig(name=key, value=value) for key, value in config.items()]
    topic = row(name=name, num_partitions=1, replication_factor=-1, assignments=[], configs=configs)
    request = messages().CreateTopicsRequest(topics=[topic], timeout_ms=REQUEST_MS, validate_only=False)
    (reply,) = send(client, request).topics
    if reply.error_code == EXISTS:
        return
    error = refusal(reply.error_code, reply.error_message, name)
    raise error or TransientError(f"{name} was made; it is shown in a moment", reason=MADE, retry_after_s=0.3)


def _metadata_request(names: Iterable[str]) -> Any:
    """To look at a topic must not make it, whatever the cluster is set to."""
    rows = [messages().MetadataRequest.MetadataRequestTopic(name=name) for name in names]
    return messages().MetadataRequest(topics=rows, allow_auto_topic_creation=False)


def configs_of(client: Any, asked: Mapping[str, Sequence[str] | None]) -> dict[str, dict[str, Held]]:
    """Topic → its configurations by name; asked for None: all of them. A topic that is gone, or not shown yet, has none."""
    if not asked:
        return {}
    rows = [(TOPIC_RESOURCE, name, None if names is None else list(names)) for name, names in asked.items()]
    reply = send(client, messages().DescribeConfigsRequest(resources=rows, include_synonyms=False, min_version=3))
    return {
        row.resource_name: {
            one.name: Held(one.value, CONFIG_KINDS[one.config_type], one.config_source == DYNAMIC_TOPIC_CONFIG)
            for one in row.configs
        }
        for row in reply.results
        if row.error_code == 0
    }


def _there(one: ObservedTopic | BackendError | None) -> bool:
    return isinstance(one, ObservedTopic)


def _with_config(one: ObservedTopic | BackendError, config: Mapping[str, Held] | None) -> ObservedTopic | BackendError:
    return replace(one, config=config) if config and isinstance(one, ObservedTopic) else one


def _with_moves(
    client: Any, found: dict[str, ObservedTopic | BackendError], wanted: Mapping[str, Topic | None]
) -> dict[str, ObservedTopic | BackendError]:
    """Asked only when a topic has another number of replicas than it should have, or some that aren't in sync."""
    off = [name for name, one in found.items() if isinstance(one, ObservedTopic) and _off(one, wanted.get(name))]
    if not off:
        return found
    moves: dict[str, dict[int, tuple[int, ...]]] = {}
    for part, row in client.list_partition_reassignments().items():
        target = tuple(broker for broker in row["replicas"] if broker not in row["removing_replicas"])
        moves.setdefault(part.topic, {})[part.partition] = target
    return {
        name: replace(one, moving=moves[name]) if name in moves and isinstance(one, ObservedTopic) else one
        for name, one in found.items()
    }


def _off(one: ObservedTopic, topic: Topic | None) -> bool:
    wanted = None if topic is None else topic.replication_factor
    return wanted is not None and (one.behind or any(len(on) != wanted for on in one.replicas))

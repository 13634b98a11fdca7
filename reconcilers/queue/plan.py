"""Planners of Kafka's objects. Pure.

desired and observed, in words:

    topic   gone, absent → nothing             gone, there → DeleteTopic, by its id
            wanted, absent → CreateTopic       wanted, settling and differs → wait
            configurations differ → ChangeConfig             fewer partitions there → RaisePartitions
            more partitions there → blocked                  other replication factor → ReassignReplicas, then wait
            another id than it had → AcceptRecreated
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final

from reconcilers.contract import CONVERGED, Difference, ExternalId, Instant, Plan, TerminalError
from reconcilers.planning import joined
from reconcilers.queue import configs, durability
from reconcilers.queue.model import ObservedTopic, Topic, memory_of
from reconcilers.queue.steps import (
    AcceptRecreated,
    ChangeConfig,
    CreateTopic,
    DeleteTopic,
    RaisePartitions,
    ReassignReplicas,
)

SETTLE_S: Final = 0.15
"""Pause before a broker is asked again whether it shows what was done."""
MOVING_S: Final = 2.0

# --- topics ------------------------------------------------------------------------------------------------------------


def plan_topic(external: ExternalId, desired: Topic | None, observed: ObservedTopic | None, _now: Instant) -> Plan:
    """See the table above."""
    if desired is None:
        return CONVERGED if observed is None else Plan((DeleteTopic(external, observed.topic_id),))
    if observed is None:
        missing = (Difference("/topic", desired.name, None),)
        warnings = tuple(durability.risks(desired.replication_factor, desired.config))
        return Plan((_creation(external, desired),), missing, warnings=warnings)
    plan = _compared(external, desired, observed)
    if plan.converged or observed.settling is None:
        return plan
    return Plan(requeue_after_s=SETTLE_S, wait_reason=observed.settling)


def _creation(external: ExternalId, desired: Topic) -> CreateTopic:
    config = tuple(sorted(desired.config.items()))
    return CreateTopic(external, desired.partitions, desired.replication_factor, config)


def _compared(external: ExternalId, desired: Topic, observed: ObservedTopic) -> Plan:
    parts = (
        _identity(external, observed),
        _configuration(external, desired, observed),
        _replication(
            external, desired, observed
        ),  # before the partitions: new ones have as many replicas as partition 0
        _partitions(external, desired, observed),
    )
    blocked = [part.blocked for part in parts if part.blocked is not None]
    waiting = next((part for part in parts if part.wait_reason is not None), CONVERGED)
    replicas = desired.replication_factor or min(map(len, observed.replicas), default=None)
    plan = Plan(
        tuple(step for part in parts for step in part.steps),
        tuple(difference for part in parts for difference in part.differences),
        joined(blocked),
        warnings=tuple(durability.risks(replicas, desired.config)),
        remember=memory_of(observed.topic_id, desired),
    )
    if waiting is CONVERGED or plan.steps or plan.blocked is not None:
        return plan
    return replace(plan, requeue_after_s=waiting.requeue_after_s, wait_reason=waiting.wait_reason)


def _identity(external: ExternalId, observed: ObservedTopic) -> Plan:
    if observed.known_id in (None, observed.topic_id):
        return CONVERGED
    difference = Difference("/topic_id", observed.known_id, observed.topic_id)
    return Plan((AcceptRecreated(external, observed.topic_id),), (difference,))


def _configuration(external: ExternalId, desired: Topic, observed: ObservedTopic) -> Plan:
    """An equal value that is only a default is equal: should the default change, it is set."""
    values, differences = [], []
    for name, wanted in sorted(desired.config.items()):
        held = observed.config.get(name)
        if held is None or not configs.same(wanted, held.value, held.kind):
            values.append((name, wanted))
            differences.append(Difference(f"/config/{name}", wanted, held and held.value))
    reset = tuple(sorted(observed.known_config - desired.config.keys()))
    if not values and not reset:
        return CONVERGED
    step = ChangeConfig(external, tuple(values), reset, tuple(sorted(desired.config)))
    return Plan((step,), tuple(differences))


def _partitions(external: ExternalId, desired: Topic, observed: ObservedTopic) -> Plan:
    wanted, have = desired.partitions, len(observed.replicas)
    if wanted is None or wanted == have:
        return CONVERGED
    difference = (Difference("/partitions", wanted, have),)
    if wanted > have:
        return Plan((RaisePartitions(external, wanted, have),), difference)
    message = (
        f"{external.name} has {have} partitions and Kafka can't take any away: declare partitions: {have}, or make a new "
        f"topic with {wanted} and move the messages there by a queue.route"
    )
    return Plan((), difference, TerminalError(message, reason="PartitionsCannotShrink"))


# --- replicas ----------------------------------------------------------------------------------------------------------


def _replication(external: ExternalId, desired: Topic, observed: ObservedTopic) -> Plan:
    wanted, moving = desired.replication_factor, observed.moving
    if wanted is None:
        return CONVERGED
    off = {part: on for part, on in enumerate(observed.replicas) if len(moving.get(part, on)) != wanted}
    if not off and not moving:
        return CONVERGED
    if not off:
        done = len(observed.replicas) - len(moving)
        reason = f"replicas are being copied: {done} of {len(observed.replicas)} partitions are done"
        return Plan((), (), None, MOVING_S, reason)
    have = sorted({len(on) for on in off.values()})
    difference = (Difference("/replication_factor", wanted, have[0] if len(have) == 1 else have),)
    if wanted > len(observed.brokers):
        message = f"replication_factor {wanted} needs as many brokers; there are {len(observed.brokers)}"
        return Plan((), difference, TerminalError(message, reason="NotEnoughBrokers"))
    return Plan((ReassignReplicas(external, tuple(_spread(off, wanted, observed))),), difference)


def _spread(
    off: Mapping[int, tuple[int, ...]], wanted: int, observed: ObservedTopic
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Brokers for each partition: those that have it first, then those that hold the least of the topic."""
    load = Counter(dict.fromkeys(observed.brokers, 0))
    load.update(broker for on in observed.replicas for broker in on)
    for part, on in off.items():
        kept = [broker for broker in on if broker in observed.brokers][:wanted]
        free = sorted((broker for broker in observed.brokers if broker not in kept), key=lambda b: (load[b], b))
        added = free[: wanted - len(kept)]
        load.update(added)
        yield part, (*kept, *added)

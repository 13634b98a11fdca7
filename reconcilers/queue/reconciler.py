"""The spec of the queue service."""

from __future__ import annotations

from reconcilers.contract import Companion, Service
from reconcilers.queue import router, routing
from reconcilers.queue.analysis import analyse
from reconcilers.queue.backend import connect
from reconcilers.queue.kinds import KINDS
from reconcilers.queue.operations import OPERATIONS
from reconcilers.queue.strimzi import STRIMZI
from schemas.queue import Target

SERVICE = Service(
    name="queue",
    kinds=KINDS,
    target=Target,
    connect=connect,
    operations=OPERATIONS,
    analyse=analyse,
    companion=Companion(frozenset({routing.ROUTE}), router.run),
    observe_timeout_s=20.0,
    effect_timeout_s=30.0,
    landing_s=10.0,
    formats=(STRIMZI,),
    places=lambda target: target.place,
    identified=True,
    batch=250,
)

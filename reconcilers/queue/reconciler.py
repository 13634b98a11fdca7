"""The spec of the queue service."""

from __future__ import annotations

from reconcilers.contract import Kind, Service
from reconcilers.queue import model, plan
from reconcilers.queue.backend import connect
from schemas.queue import Target, Topic

TOPIC = Kind(
    model.TOPIC,
    Topic,
    model.topic_name,
    model.topic,
    plan.plan_topic,
    data_bearing=True,
    recall=model.recalled_topic,
)

SERVICE = Service(
    name="queue",
    kinds=(TOPIC,),
    target=Target,
    connect=connect,
    observe_timeout_s=20.0,
    effect_timeout_s=30.0,
    landing_s=10.0,
    batch=250,
)

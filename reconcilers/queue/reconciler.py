"""The spec of the queue service."""

from __future__ import annotations

from reconcilers.contract import Companion, Kind, Service
from reconcilers.queue import access, access_plan, confinement, groups, model, plan, route_plan, router, routing
from reconcilers.queue.analysis import analyse
from reconcilers.queue.backend import connect
from reconcilers.queue.operations import OPERATIONS
from reconcilers.queue.strimzi import STRIMZI
from schemas.queue import Acl, Group, Quota, Route, Target, Topic, User

TOPIC = Kind(
    model.TOPIC,
    Topic,
    model.topic_name,
    model.topic,
    plan.plan_topic,
    data_bearing=True,
    recall=model.recalled_topic,
    named_by="topic",
    confine=confinement.nothing,
)
USER = Kind(
    access.USER,
    User,
    access.username,
    access.user,
    access_plan.plan_user,
    recall=access.recalled_user,
    named_by="username",
    parts=access.parts_of_user,
    confine=confinement.of_user,
)
ACL = Kind(
    access.ACL,
    Acl,
    access.principal,
    access.acl,
    access_plan.plan_acl,
    belongs=confinement.principal_belongs,
    confine=confinement.of_acl,
)
QUOTA = Kind(
    access.QUOTA,
    Quota,
    access.entity,
    access.quota,
    access_plan.plan_quota,
    belongs=confinement.entity_belongs,
    confine=confinement.nothing,
)
ROUTE = Kind(
    routing.ROUTE,
    Route,
    routing.route_name,
    routing.definition,
    route_plan.plan_route,
    per_target=True,
    confine=confinement.of_route,
)
GROUP = Kind(
    groups.GROUP,
    Group,
    groups.group_name,
    groups.bounds,
    groups.plan_group,
    preexisting=True,
    per_target=True,
    confine=confinement.nothing,
)

SERVICE = Service(
    name="queue",
    kinds=(TOPIC, USER, ACL, QUOTA, ROUTE, GROUP),
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
    batch=250,
)

"""The kinds of the queue service: which functions make each of them."""

from __future__ import annotations

from reconcilers.contract import Kind
from reconcilers.queue import access, access_plan, confinement, groups, model, plan, references, route_plan, routing
from schemas.queue import Acl, Group, Quota, Route, Topic, User

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
    requires=references.of_user,
    follows=references.before_user,
    confine=confinement.of_user,
)
ACL = Kind(
    access.ACL,
    Acl,
    access.principal,
    access.acl,
    access_plan.plan_acl,
    belongs=confinement.principal_belongs,
    requires=references.of_acl,
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
    requires=references.of_route,
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

KINDS = (TOPIC, USER, ACL, QUOTA, ROUTE, GROUP)

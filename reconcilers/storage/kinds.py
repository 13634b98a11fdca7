"""The kinds of the storage service, each put together from its pure parts."""

from __future__ import annotations

from typing import Any, Final

from reconcilers.contract import Kind
from reconcilers.storage import logins, memberships, model, parameters, plan, reach
from schemas.storage import AccessKey, Bucket, Group, Policy, ServerConfig, User

BUCKET = Kind(
    model.BUCKET,
    Bucket,
    model.bucket_name,
    model.declared,
    plan.plan_bucket,
    data_bearing=True,
    recall=model.recall,
    named_by="bucket",
    requires=reach.bucket_requires,
    confine=reach.confine_bucket,
)
POLICY = Kind(
    logins.POLICY,
    Policy,
    logins.policy_name,
    logins.declared_policy,
    logins.plan_policy,
    named_by="policy",
    confine=reach.confine_policy,
)
USER = Kind(
    logins.USER,
    User,
    logins.user_name,
    logins.declared_user,
    logins.plan_user,
    named_by="access_key",
    requires=reach.user_requires,
    parts=memberships.parts_of_user,
    shares=memberships.shares_of_user,
    confine=reach.confine_user,
)
GROUP = Kind(
    logins.GROUP,
    Group,
    logins.group_name,
    logins.declared_group,
    logins.plan_group,
    named_by="group",
    requires=reach.group_requires,
    parts=memberships.parts_of_group,
    shares=memberships.shares_of_group,
    confine=reach.confine_group,
)
ACCESS_KEY = Kind(
    logins.ACCESS_KEY,
    AccessKey,
    logins.key_name,
    logins.declared_key,
    logins.plan_key,
    named_by="access_key",
    requires=reach.key_requires,
    confine=reach.confine_key,
)
SERVER_CONFIG = Kind(
    parameters.SERVER_CONFIG,
    ServerConfig,
    parameters.subsystem,
    parameters.declared,
    parameters.plan_config,
    recall=parameters.recall,
    preexisting=True,
)

KINDS: Final[tuple[Kind[Any, Any, Any], ...]] = (BUCKET, POLICY, USER, GROUP, ACCESS_KEY, SERVER_CONFIG)

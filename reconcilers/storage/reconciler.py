"""The spec of the storage service."""

from __future__ import annotations

from reconcilers.contract import Kind, Service
from reconcilers.storage import logins, model, parameters, plan, reach
from reconcilers.storage.analysis import analyse
from reconcilers.storage.backend import connect
from reconcilers.storage.documents import FORMATS
from reconcilers.storage.operations import OPERATIONS
from schemas.storage import AccessKey, Bucket, Group, Policy, ServerConfig, Target, User

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
    preexisting=True,
)

SERVICE = Service(
    name="storage",
    kinds=(BUCKET, POLICY, USER, GROUP, ACCESS_KEY, SERVER_CONFIG),
    target=Target,
    connect=connect,
    places=lambda target: target.place,
    operations=OPERATIONS,
    formats=FORMATS,
    analyse=analyse,
    streams="objects",
    batch=250,
)

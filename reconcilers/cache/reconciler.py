"""The spec of the cache service."""

from __future__ import annotations

from reconcilers.cache import acl, memcached_settings, model, plan
from reconcilers.cache.acl_file import REDIS_ACL
from reconcilers.cache.analysis import analyse
from reconcilers.cache.backend import connect
from reconcilers.cache.namespace import NAMESPACE
from reconcilers.cache.operations import OPERATIONS
from reconcilers.contract import Kind, Service
from schemas.cache import MemcachedConfig, RedisConfig, RedisUser, Target

REDIS_CONFIG = Kind(
    model.REDIS_CONFIG, RedisConfig, model.config_name, model.config, plan.plan_config, preexisting=True
)
REDIS_USER = Kind(
    model.REDIS_USER,
    RedisUser,
    acl.username,
    acl.declared,
    plan.plan_user,
    named_by="username",
    confine=acl.confine,
)
MEMCACHED_CONFIG = Kind(
    model.MEMCACHED_CONFIG,
    MemcachedConfig,
    model.config_name,
    memcached_settings.declared,
    plan.plan_settings,
    preexisting=True,
)

SERVICE = Service(
    name="cache",
    kinds=(REDIS_CONFIG, REDIS_USER, MEMCACHED_CONFIG, NAMESPACE),
    target=Target,
    connect=connect,
    places=lambda target: target.place,
    operations=OPERATIONS,
    analyse=analyse,
    formats=(REDIS_ACL,),
    batch=250,
)

"""Setting type → value model: the one table of all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel

from schemas import queue, search, storage
from schemas.cache import MemcachedConfig, Namespace, RedisConfig, RedisUser, Target

KINDS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {
        "cache.target": Target,
        "cache.redis_config": RedisConfig,
        "cache.redis_user": RedisUser,
        "cache.memcached_config": MemcachedConfig,
        "cache.namespace": Namespace,
        "queue.target": queue.Target,
        "queue.topic": queue.Topic,
        "queue.user": queue.User,
        "queue.acl": queue.Acl,
        "queue.quota": queue.Quota,
        "queue.route": queue.Route,
        "storage.target": storage.Target,
        "storage.bucket": storage.Bucket,
        "storage.policy": storage.Policy,
        "storage.user": storage.User,
        "storage.group": storage.Group,
        "storage.access_key": storage.AccessKey,
        "storage.server_config": storage.ServerConfig,
        "search.target": search.Target,
        "search.index": search.Index,
    }
)

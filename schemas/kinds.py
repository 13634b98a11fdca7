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
        "queue.group": queue.Group,
        "storage.target": storage.Target,
        "storage.bucket": storage.Bucket,
        "storage.policy": storage.Policy,
        "storage.user": storage.User,
        "storage.group": storage.Group,
        "storage.access_key": storage.AccessKey,
        "storage.server_config": storage.ServerConfig,
        "search.target": search.Target,
        "search.index": search.Index,
        "search.component_template": search.ComponentTemplate,
        "search.index_template": search.IndexTemplate,
        "search.alias": search.Alias,
        "search.pipeline": search.Pipeline,
        "search.script": search.Script,
        "search.synonyms": search.Synonyms,
        "search.lifecycle": search.Lifecycle,
        "search.repository": search.Repository,
        "search.snapshot_policy": search.SnapshotPolicy,
        "search.role": search.Role,
        "search.user": search.User,
        "search.cluster_settings": search.ClusterSettings,
        "search.suggester": search.Suggester,
    }
)

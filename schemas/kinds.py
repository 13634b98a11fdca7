"""Setting type → value model: the one table of all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from pydantic import BaseModel

from schemas import search, storage
from schemas.cache import MemcachedConfig, Namespace, RedisConfig, RedisUser, Target

KINDS: Final[Mapping[str, type[BaseModel]]] = MappingProxyType(
    {
        "cache.target": Target,
        "cache.redis_config": RedisConfig,
        "cache.redis_user": RedisUser,
        "cache.memcached_config": MemcachedConfig,
        "cache.namespace": Namespace,
        "storage.target": storage.Target,
        "storage.bucket": storage.Bucket,
        "search.target": search.Target,
        "search.index": search.Index,
    }
)

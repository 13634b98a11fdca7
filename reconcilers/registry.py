"""The services there are: one line each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from reconcilers.cache import reconciler as cache
from reconcilers.contract import Service
from reconcilers.queue import reconciler as queue
from reconcilers.search import reconciler as search
from reconcilers.storage import reconciler as storage

SERVICES: Final[Mapping[str, Service]] = MappingProxyType(
    {service.name: service for service in (cache.SERVICE, queue.SERVICE, search.SERVICE, storage.SERVICE)}
)
"""Service name → spec."""

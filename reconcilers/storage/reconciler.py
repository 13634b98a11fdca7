"""The spec of the storage service."""

from __future__ import annotations

from reconcilers.contract import Service
from reconcilers.storage.analysis import analyse
from reconcilers.storage.backend import connect
from reconcilers.storage.documents import FORMATS
from reconcilers.storage.kinds import KINDS
from reconcilers.storage.operations import OPERATIONS
from schemas.storage import Target

SERVICE = Service(
    name="storage",
    kinds=KINDS,
    target=Target,
    connect=connect,
    places=lambda target: target.place,
    operations=OPERATIONS,
    formats=FORMATS,
    analyse=analyse,
    streams="objects",
    streams_confined=True,
    batch=250,
)

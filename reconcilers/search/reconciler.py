"""The spec of the search service."""

from __future__ import annotations

from reconcilers.contract import Kind, Service
from reconcilers.search import confining, definition, documents, implied, model, plan, snapshots, suggesters
from reconcilers.search.analysis import analyse
from reconcilers.search.backend import connect
from reconcilers.search.documents import own_name
from reconcilers.search.file_format import ELASTICSEARCH
from reconcilers.search.operations import OPERATIONS
from schemas import search

INDICES = Kind(
    model.INDEX,
    search.Index,
    model.index_name,
    definition.definition,
    plan.plan_index,
    data_bearing=True,
    named_by="index",
    requires=implied.of_index,
    confine=confining.index,
)
KINDS = (
    INDICES,
    *documents.KINDS,
    Kind(
        snapshots.SNAPSHOT_POLICY,
        search.SnapshotPolicy,
        own_name,
        snapshots.policy,
        snapshots.plan_policy,
        preexisting=True,
        requires=implied.of_snapshot_policy,
    ),
    suggesters.KIND,
)

SERVICE = Service(
    name="search",
    kinds=KINDS,
    target=search.Target,
    connect=connect,
    places=lambda target: target.place,
    operations=OPERATIONS,
    analyse=analyse,
    formats=(ELASTICSEARCH,),
    streams="documents",
    observe_timeout_s=30.0,
    effect_timeout_s=90.0,
    batch=16,
)

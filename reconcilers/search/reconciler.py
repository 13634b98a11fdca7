"""The spec of the search service."""

from __future__ import annotations

from reconcilers.contract import Kind, Service
from reconcilers.search import definition, model, plan
from reconcilers.search.backend import connect
from reconcilers.search.documents import ELASTICSEARCH
from schemas.search import Index, Target

INDICES = Kind(
    model.INDEX, Index, model.index_name, definition.definition, plan.plan_index, data_bearing=True, named_by="index"
)

SERVICE = Service(
    name="search",
    kinds=(INDICES,),
    target=Target,
    connect=connect,
    formats=(ELASTICSEARCH,),
    observe_timeout_s=30.0,
    effect_timeout_s=90.0,
    batch=100,
)

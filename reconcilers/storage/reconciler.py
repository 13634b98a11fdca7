"""The spec of the storage service."""

from __future__ import annotations

from reconcilers.contract import Kind, Service
from reconcilers.storage import model, plan
from reconcilers.storage.backend import connect
from schemas.storage import Bucket, Target

BUCKET = Kind(
    model.BUCKET, Bucket, model.bucket_name, model.declared, plan.plan_bucket, data_bearing=True, recall=model.recall
)

SERVICE = Service(name="storage", kinds=(BUCKET,), target=Target, connect=connect)

"""InfrastructureMetric: one sampled value."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

SCHEMA = "metric.v1"


class InfrastructureMetric(BaseModel):
    """One measurement of a backend at one time."""

    model_config = ConfigDict(extra="allow")

    id: str
    metric_type: str
    timestamp: str
    service_name: str
    value: float
    tags: dict[str, str] = Field(default_factory=dict)
    tenant: str

"""Whose contents may be streamed on a target that is shared under a prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from controlplane.domain.errors import Elsewhere, Reason, Refused
from controlplane.runtime.catalogue import Catalogue, TargetId
from controlplane.runtime.streams import Streams
from reconcilers.contract import StreamRequest
from reconcilers.registry import SERVICES


class Shared:
    """Every target of `default` is shared with `acme` alone."""

    def prefix(self, tenant: str, target: str) -> str | None:
        return "acme-" if tenant == "acme" and target.startswith("default/") else None

    def prefixes(self, _target: str) -> Mapping[str, str]:
        return {"acme": "acme-"}


class Another:
    """A controller of a replica that drives nothing."""

    def elsewhere(self, target: TargetId) -> int:
        assert target.target == "main"
        return 3


async def asked(tenant: str, what: str, target: str, path: str) -> Refused:
    controller: Any = Another()
    streams = Streams(Catalogue(SERVICES, shares=Shared()), controller)
    with pytest.raises(Refused) as refused:
        async with streams.open(tenant, what, target, StreamRequest("GET", path, {})):
            raise AssertionError
    return refused.value


@pytest.mark.parametrize(
    ("tenant", "target", "path"),
    [("default", "main", "shop/a"), ("acme", "default/main", "acme-files/a"), ("acme", "main", "anything/a")],
)
async def test_what_is_ones_own_is_for_the_owner_of_the_shard_to_serve(tenant: str, target: str, path: str):
    refused = await asked(tenant, "objects", target, path)
    assert isinstance(refused, Elsewhere)
    assert refused.shard == 3


@pytest.mark.parametrize(
    ("tenant", "what", "path", "why"),
    [
        ("acme", "objects", "shop/a", "begins with acme-"),
        ("stranger", "objects", "acme-files/a", "not shared"),
        ("acme", "documents", "acme-index", "can't be confined"),
    ],
)
async def test_what_is_not_ones_own_is_refused_wherever_it_is(tenant: str, what: str, path: str, why: str):
    refused = await asked(tenant, what, "default/main", path)
    assert refused.reason is Reason.FORBIDDEN
    assert why in refused.detail


async def test_nobody_streams_what_no_service_has():
    assert (await asked("default", "nothing", "main", "a")).reason is Reason.NOT_FOUND

"""An Elasticsearch that is reached by TLS, as a target and as the projection; and what is said when it isn't trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trustme

from controlplane.devstack.elasticsearch import credentials
from controlplane.devstack.ports import LOOPBACK
from controlplane.projection.elasticsearch_address import Address
from controlplane.projection.ports import StoreUnavailable
from reconcilers.contract import BackendError, TerminalError, Unreachable
from tests.contract.projection_stores import elasticsearch_store
from tests.integration.backend_world import DictSecrets
from tests.integration.search_world import search_world
from tests.secured_servers import SecuredElasticsearch

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
SCRIPT = "search.script"


def opened(secured: SecuredElasticsearch, url: str = "", **tls: Any) -> Any:
    """As its administrator."""
    name, password = credentials(secured.server.place)
    who = {"username": name, "password": {"from_env": "ES"}}
    return search_world(url or secured.server.url, secrets=DictSecrets(ES=password), **who, **tls)


def foreign(folder: Path) -> str:
    trustme.CA().cert_pem.write_to_path(folder / "foreign.pem")
    return str(folder / "foreign.pem")


@pytest.mark.parametrize("way", ["trusted", "unchecked"])
async def test_a_node_that_speaks_tls_is_driven(secured_elasticsearch: SecuredElasticsearch, way: str):
    tls = {"ca_file": str(secured_elasticsearch.ca_file)} if way == "trusted" else {"verify": False}
    async with opened(secured_elasticsearch, **tls) as world:
        await world.converge(SCRIPT, {"source": "doc['price'].value"}, f"by-tls-{way}")
        assert not (await world.look(SCRIPT, {"source": "doc['price'].value"}, f"by-tls-{way}")).steps


REFUSED = {
    "the system's authorities": (lambda one, _: (one.server.url, {}), "CertificateNotTrusted", "ca_file must hold"),
    "another authority": (
        lambda one, folder: (one.server.url, {"ca_file": foreign(folder)}),
        "CertificateNotTrusted",
        "ca_file must hold",
    ),
    "a name that the certificate isn't of": (
        lambda one, _: (one.server.url.replace(LOOPBACK, "localhost"), {"ca_file": str(one.ca_file)}),
        "CertificateNotTrusted",
        "localhost",
    ),
    "a file that isn't there": (
        lambda one, folder: (one.server.url, {"ca_file": f"{folder}/none"}),
        "InvalidCaFile",
        "/none",
    ),
    "no TLS": (lambda one, _: (one.server.url.replace("https", "http"), {}), "Unreachable", "does it speak HTTPS"),
}


@pytest.mark.parametrize("why", REFUSED)
async def test_a_target_that_can_not_be_opened_says_why(
    secured_elasticsearch: SecuredElasticsearch, why: str, tmp_path: Path
):
    how, reason, words = REFUSED[why]
    url, tls = how(secured_elasticsearch, tmp_path)
    with pytest.raises(BackendError, match=words) as refused:
        async with opened(secured_elasticsearch, url, **tls):
            """It doesn't come so far."""
    assert refused.value.reason == reason
    assert isinstance(refused.value, Unreachable if reason == "Unreachable" else TerminalError)


@pytest.mark.parametrize("why", REFUSED)
async def test_a_projection_that_can_not_be_opened_says_why(
    secured_elasticsearch: SecuredElasticsearch, why: str, tmp_path: Path
):
    how, _, words = REFUSED[why]
    url, tls = how(secured_elasticsearch, tmp_path)
    store = elasticsearch_store(secured_elasticsearch.server, Address(url, "tls", tls.get("ca_file", "")))
    with pytest.raises(StoreUnavailable, match=words.replace("ca_file", "ca_file in projection.url")):
        await store.positions()
    await store.close()

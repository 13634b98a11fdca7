"""The stores of the projection that are held to the contract, each on its real backend."""

from __future__ import annotations

import uuid

import pytest

from controlplane.devstack.elasticsearch import credentials
from controlplane.projection.elasticsearch import ElasticsearchStore
from controlplane.projection.elasticsearch_address import Address
from controlplane.projection.sqlite import SqliteStore
from tests.servers import SharedServer


def sqlite_stores(request: pytest.FixtureRequest):
    directory = request.getfixturevalue("tmp_path")
    return lambda: SqliteStore(directory / "projection.db")


def elasticsearch_stores(request: pytest.FixtureRequest):
    """Each test has a prefix of its own, of which nothing is left."""
    server: SharedServer = request.getfixturevalue("elasticsearch_server")
    address = Address(server.url, f"test-{uuid.uuid4().hex[:12]}")
    request.addfinalizer(lambda: forget(server, address))
    return lambda: elasticsearch_store(server, address, immediate=True)


def elasticsearch_store(server: SharedServer, address: Address, **options) -> ElasticsearchStore:
    return ElasticsearchStore(address, login=lambda: credentials(server.place), **options)


STORES = {"sqlite": sqlite_stores, "elasticsearch": elasticsearch_stores}
"""Add an implementation, and it is held to the suites. Each is given the test's request and gives a function that opens its
store, and opens it again."""


def forget(server: SharedServer, address: Address) -> None:
    """Indices and templates; the server has a limit for the number of the first."""
    server.do(_forget(elasticsearch_store(server, address)))


async def _forget(store: ElasticsearchStore) -> None:
    await store.generations.drop(below=1_000)
    await store.generations.drop_templates()
    await store.close()

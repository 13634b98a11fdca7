"""Two tenants on one Elasticsearch, by the real daemon: neither gets at what is the other's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from elasticsearch import ApiError as Refused
from elasticsearch import AsyncElasticsearch

from controlplane.client.errors import ApiError
from controlplane.client.http import CoreplaneClient
from controlplane.devstack.elasticsearch import credentials
from tests.integration.api_daemon import until
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

SHARE = {"target": "default/search.target/es", "tenant": "acme", "prefix": "acme-"}
ON = {"target": "default/es"}
ROLE: dict[str, Any] = {**ON, "indices": [{"names": ["acme-*"], "privileges": ["all"]}]}
GOES = {"deletion": "delete", "allow": ["DropIndex"]}
DOCUMENT = {"price": 1}


@pytest.fixture
async def owner(daemon: DaemonProcess, elasticsearch_server: Any) -> AsyncIterator[CoreplaneClient]:
    """A tenant with an Elasticsearch, and an index on it."""
    name, password = credentials(elasticsearch_server.place)
    folder = daemon.data_dir / "secrets"
    folder.mkdir(exist_ok=True)
    (folder / "es").write_text(password)
    (folder / "app").write_text("sesame-sesame")
    value = {"url": elasticsearch_server.url, "username": name, "password": {"from_file": "secrets/es"}}
    async with daemon.client() as client:
        await client.put_setting("search.target", "es", {"value": value}, wait="Ready", wait_s=60)
        await ready(client, "search.index", "shop-orders", {"target": "es"})
        yield client
        await client.delete_setting("search.index", "shop-orders", wait="Gone", wait_s=60)


@pytest.fixture
async def acme(daemon: DaemonProcess, owner: CoreplaneClient) -> AsyncIterator[CoreplaneClient]:
    """A tenant with whom it is shared; what it declared goes afterwards."""
    async with daemon.client(tenant="system") as system:
        await system.put_setting("access.tenant", "acme", {"value": {}})
        await system.put_setting("access.share", "acme-es", {"value": SHARE})
    async with daemon.client(tenant="acme") as client:
        yield client
        for one in [one async for one in client.list_settings()]:
            await client.delete_setting(one["setting_type"], one["name"])

        async def gone() -> bool:
            return [one async for one in client.list_settings()] == []

        await until(gone, 90)


async def ready(client: CoreplaneClient, setting_type: str, name: str, value: dict[str, Any]) -> None:
    declaration = {"value": value, "policy": GOES}
    made = await client.put_setting(setting_type, name, declaration, wait="Ready", wait_s=90)
    assert made["status"]["phase"] == "Ready", made["status"]


async def is_ready(client: CoreplaneClient, setting_type: str, name: str) -> bool:
    return bool((await client.get_setting(setting_type, name))["status"]["phase"] == "Ready")


async def faults(client: CoreplaneClient, setting_type: str, value: dict[str, Any], name: str = "acme-x") -> list[str]:
    """Paths within the value that are refused."""
    with pytest.raises(ApiError) as refused:
        await client.put_setting(setting_type, name, {"value": {**ON, **value}})
    assert refused.value.status == 422
    return [fault.path.partition("/value")[2] for fault in refused.value.errors]


async def status_of(request: Awaitable[Any]) -> int:
    """What was answered, of a bulk request to its only item."""
    try:
        answer = await request
    except Refused as exc:
        return exc.status_code
    return int(next((item["index"]["status"] for item in answer.body.get("items", ())), 200))


async def test_a_user_of_another_tenant_gets_no_further_than_its_prefix(
    acme: CoreplaneClient, elasticsearch_server: Any
) -> None:
    await acme.apply(
        [
            {
                "type": "search.user",
                "name": "acme-app",
                "value": {**ON, "roles": ["acme-app"], "password": {"from_file": "secrets/app"}},
            },
            {"type": "search.role", "name": "acme-app", "value": ROLE},
            {"type": "search.alias", "name": "acme-all", "value": {**ON, "indices": ["acme-things"]}},
            {"type": "search.index", "name": "acme-things", "value": ON, "policy": GOES},
        ]
    )
    for setting_type, name in (("search.user", "acme-app"), ("search.alias", "acme-all")):
        await until(lambda t=setting_type, n=name: is_ready(acme, t, n), 90)
    async with AsyncElasticsearch(elasticsearch_server.url, basic_auth=("acme-app", "sesame-sesame")) as app:
        await app.index(index="acme-things", document=DOCUMENT, refresh=True)
        assert (await app.count(index="acme-all"))["count"] == 1
        assert {name.startswith("acme-") for name in await app.indices.get(index="*")} == {True}
        for forbidden in (
            app.get(index="shop-orders", id="1"),
            app.search(index="shop-orders"),
            app.index(index="shop-orders", document=DOCUMENT),
            app.delete_by_query(index="shop-orders", query={"match_all": {}}),
            app.indices.delete(index="shop-orders"),
            app.indices.get_mapping(index="shop-orders"),
            app.indices.put_alias(index="acme-things", name="shop-orders-2"),
            app.indices.put_alias(index="shop-orders", name="acme-mine"),
            app.indices.create(index="shop-new"),
            app.reindex(source={"index": "shop-orders"}, dest={"index": "acme-copy"}),
            app.bulk(operations=[{"index": {"_index": "shop-orders"}}, DOCUMENT]),
            app.indices.put_index_template(name="acme-t", index_patterns=["*"]),
            app.ingest.put_pipeline(id="acme-p", processors=[]),
            app.cluster.put_settings(persistent={"cluster.max_shards_per_node": "1"}),
            app.security.get_user(),
            app.security.put_role(name="acme-app", cluster=["all"]),
        ):
            assert await status_of(forbidden) == 403


async def test_what_would_reach_beyond_the_prefix_is_refused_with_its_path(acme: CoreplaneClient) -> None:
    assert await faults(acme, "search.index", {}, "shop-x") == [""]
    assert await faults(acme, "search.index", {"aliases": {"shop": {}, "acme-y": {}}}) == ["/aliases/shop"]
    assert await faults(acme, "search.index", {"settings": {"index": {"default_pipeline": "p"}}}) == ["/settings"]
    lookup = {"runtime": {"r": {"type": "lookup", "target_index": "shop-orders"}}}
    assert await faults(acme, "search.index", {"mappings": lookup}) == ["/mappings"]
    checks = {"verify": {"queries": [{"query": {"match_all": {}}}]}}
    assert await faults(acme, "search.index", {"migration": checks}) == ["/migration/verify/queries"]
    assert await faults(acme, "search.alias", {"indices": ["acme-x", "shop-orders"]}) == ["/indices/1"]
    assert await faults(acme, "search.suggester", {"index": "shop-orders", "field": "a", "kind": "term"}) == ["/index"]
    template = {"index_patterns": ["acme-*", "*"], "composed_of": ["theirs"], "template": {"aliases": {"shop": {}}}}
    assert await faults(acme, "search.index_template", template) == [
        "/index_patterns/1",
        "/composed_of/0",
        "/template/aliases/shop",
    ]
    part = {"template": {"settings": {"index.final_pipeline": "p"}}}
    assert await faults(acme, "search.component_template", part) == ["/template/settings"]
    rights = {"indices": [{"names": ["acme-*", "/.*/", "acme-a,shop-b"], "privileges": ["read"]}]}
    assert await faults(acme, "search.role", rights) == ["/indices/0/names/1", "/indices/0/names/2"]
    assert await faults(acme, "search.role", {"cluster": ["all"], "run_as": ["elastic"]}) == ["/cluster", "/run_as"]
    query = {"indices": [{"names": ["acme-*"], "privileges": ["read"], "query": {"match_all": {}}}]}
    assert await faults(acme, "search.role", query) == ["/indices/0/query"]
    assert await faults(acme, "search.user", {"roles": ["superuser"]}) == ["/roles/0"]
    for setting_type, value in (
        ("search.pipeline", {"processors": []}),
        ("search.cluster_settings", {"settings": {"cluster.max_shards_per_node": 1}}),
        ("search.repository", {"settings": {"location": "x"}}),
    ):
        assert await faults(acme, setting_type, value) == ["/target"]


async def test_the_owner_leaves_the_names_of_others_alone_and_operations_stay_at_home(
    acme: CoreplaneClient, owner: CoreplaneClient
) -> None:
    assert await faults(owner, "search.index", {"target": "es"}, "acme-mine") == [""]
    await ready(acme, "search.index", "acme-things", ON)
    elsewhere = {"terms": {"price": {"index": "shop-orders", "id": "1", "path": "price"}}}
    for name, request in (("query", {"query": elsewhere}), ("bulk", {"documents": [DOCUMENT]}), ("migrate", {})):
        with pytest.raises(ApiError, match="has for itself"):
            await acme.operate(f"search.{name}", {"index": "acme-things", **request})

"""The shop's search, as it is declared in the example, on a real Elasticsearch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane import devstack
from schemas.kinds import KINDS
from schemas.setting import Declaration
from tests.integration.search_world import INDEX, opened

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

EXAMPLE = Path(devstack.__file__).parent / "example" / "shop-search.yaml"
NOT_HERE = {"search.target", "search.lifecycle"}
"""The stack declares the target; the other needs a module that its server lacks."""


def declarations() -> list[dict[str, Any]]:
    found = list(yaml.safe_load_all(EXAMPLE.read_text(encoding="utf-8")))
    for content in found:
        for reference in _secrets(content["value"]):
            reference["from_env"] = Path(reference.pop("from_file")).name
    return found


def _secrets(value: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in value.values() if isinstance(part, dict) and "from_file" in part]


def test_the_example_shows_every_kind() -> None:
    used = {content["type"] for content in declarations()}
    assert used == {kind for kind in KINDS if kind.startswith("search.")} - NOT_HERE
    names = {f"{content['type']}/{content['name']}" for content in declarations()}
    for content in declarations():
        declaration = Declaration.model_validate(content)
        assert set(declaration.depends_on) <= names
        assert {"app", "team"} <= declaration.labels.keys()


async def test_the_example_converges_finds_what_people_type_and_takes_a_change(elasticsearch_server) -> None:
    async with opened(elasticsearch_server, {"shop-search-storefront": "a-long-password"}) as world:
        try:
            await _shop(world)
        finally:  # the run's server is for others too
            await world.wire.ask("PUT", "/_cluster/settings", {"persistent": {"action.auto_create_index": None}})


async def _shop(world: Any) -> None:
    contents = {(one["type"], one["name"]): one["value"] for one in declarations()}
    for (kind, name), value in contents.items():
        assert (await world.converge(kind, value, name)).converged, (kind, name)
    documents = {"1": " Trail SHOES", "2": "Running sneakers", "3": "Red tee"}
    for id_, title in documents.items():
        body = {"title": title, "brand": "ACME", "price": 10 * int(id_), "stock": int(id_) - 1}
        await world.wire.ask("PUT", f"/products/_doc/{id_}?refresh=true", body)
    found = await world.wire.ask("POST", "/products/_search", {"query": {"match": {"title": "trainer"}}})
    assert [hit["_id"] for hit in found["hits"]["hits"]] == ["2"]
    in_stock = await world.wire.ask("GET", "/products-in-stock/_count")
    assert in_stock["count"] == 2
    rows = await world.suggest("product-titles", contents["search.suggester", "product-titles"], "runing")
    assert [row["text"] for row in rows] == ["Running sneakers"]
    changed = contents[INDEX, "products"]
    changed["mappings"]["properties"]["stock"] = {"type": "integer"}
    changed["migration"]["hold_s"] = 20
    assert (await world.converge(INDEX, changed, "products")).converged
    assert "SwitchAlias" in world.taken
    for (kind, name), value in contents.items():
        assert (await world.look(kind, value, name)).converged, (kind, name)

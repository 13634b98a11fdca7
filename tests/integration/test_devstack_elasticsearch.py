"""The devstack's Elasticsearch: strict about who asks, stopped in order, what it was given is there afterwards."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

from controlplane.devstack import elasticsearch, elasticsearch_program
from controlplane.devstack.provision import this_machine
from tests.servers import SharedServer

pytestmark = pytest.mark.integration


def login(name: str, password: str) -> dict[str, str]:
    return {"Authorization": aiohttp.encode_basic_auth(name, password)}


async def status_of(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        return answer.status


async def test_the_administrator_may_everything_and_nobody_else_anything(elasticsearch_server: SharedServer):
    administrator = login(*elasticsearch.credentials(elasticsearch_server.place))
    url = elasticsearch_server.url
    async with aiohttp.ClientSession() as session:
        async with session.get(f"{url}/_security/_authenticate", headers=administrator) as answer:
            assert "superuser" in (await answer.json())["roles"]
        async with session.get(f"{url}/", headers=administrator) as answer:
            assert (await answer.json())["version"]["number"] == elasticsearch_program.VERSION
        async with session.get(f"{url}/") as answer:
            assert answer.status == 401
        async with session.get(f"{url}/", headers=login("coreplane", "wrong")) as answer:
            assert answer.status == 401


async def test_it_obeys_roles(elasticsearch_server: SharedServer):
    administrator = login(*elasticsearch.credentials(elasticsearch_server.place))
    url = elasticsearch_server.url
    role = {"indices": [{"names": ["devstack-*"], "privileges": ["read"]}]}
    user = {"password": "a-password", "roles": ["devstack-reader"]}
    reader = login("devstack-reader", "a-password")
    async with aiohttp.ClientSession() as session:
        for path, body in (
            ("_security/role/devstack-reader", role),
            ("_security/user/devstack-reader", user),
            ("devstack-one/_doc/1?refresh=true", {"text": "kept"}),
        ):
            async with session.put(f"{url}/{path}", json=body, headers=administrator) as answer:
                assert answer.status in {200, 201}, await answer.text()
        async with session.get(f"{url}/devstack-one/_doc/1", headers=reader) as answer:
            assert (await answer.json())["_source"] == {"text": "kept"}
        async with session.put(f"{url}/devstack-one/_doc/2", json={}, headers=reader) as answer:
            assert answer.status == 403


async def test_what_it_was_given_survives_a_kill_and_a_restart(elasticsearch_server: SharedServer):
    administrator = login(*elasticsearch.credentials(elasticsearch_server.place))
    document = f"{elasticsearch_server.url}/devstack-kept/_doc/1"
    async with aiohttp.ClientSession(headers=administrator) as session:
        async with session.put(document, json={"text": "kept"}) as answer:
            assert answer.status in {200, 201}
        await elasticsearch_server.kill()
        with pytest.raises(aiohttp.ClientError):
            await session.get(document)
        await elasticsearch_server.start()
        async with asyncio.timeout(120):
            while await status_of(session, document) == 503:  # the index is being opened
                await asyncio.sleep(0.1)
        assert await status_of(session, document) == 200


def test_only_elasticsearch_is_kept_of_what_was_downloaded(elasticsearch_server: SharedServer):
    assert elasticsearch_server.pid
    folder = this_machine().cache_dir / elasticsearch_program.NAME
    assert not list(folder.rglob("*.zip"))
    assert not list(folder.glob("*.draft"))

"""Plans and imports leave no trace, by the servers' own counts: on Redis, Kafka, MinIO and Elasticsearch together."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from reconcilers.registry import SERVICES
from tests.e2e.conditions import until
from tests.integration import queue_world
from tests.integration.four_services import PASSWORD, SECRET, TARGETS, FourServices, connected
from tests.integration.queue_world import unique
from tests.integration.storage_world import reads
from tests.servers import DaemonProcess

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

DEADLINE_S = 120.0
NOT_HERE = {
    "cache.namespace": "the daemon's own notion",
    "queue.group": "only watched, nothing of it is owned: see test_queue_daemon",
    "queue.route": "the daemon's own notion",
    "search.alias": "comes with its index, as one of its aliases",
    "search.snapshot_policy": "the daemon's own notion",
    "search.suggester": "the daemon's own notion",
    "cache.memcached_config": "of a Memcached: see test_cache_discover",
    "search.synonyms": "this build of the server lacks the module",
    "search.lifecycle": "this build of the server lacks the module",
    "storage.server_config": "nobody knows which parameters somebody has set",
}


@pytest.fixture
async def four(
    daemon: DaemonProcess, redis_server: Any, kafka_broker: Any, minio_server: Any, elasticsearch_server: Any
) -> AsyncIterator[FourServices]:
    async with connected(daemon, redis_server, kafka_broker, minio_server, elasticsearch_server) as found:
        await found.client.apply(found.declarations)
        for target in TARGETS:
            await until(lambda t=target: ready(found, *t.split("/")), DEADLINE_S, f"{target} is connected")
        yield found


async def ready(four: FourServices, setting_type: str, name: str) -> bool:
    return bool((await four.client.get_setting(setting_type, name))["status"]["phase"] == "Ready")


async def made_by_others(four: FourServices, kafka_broker: Any, own: str) -> dict[str, str]:
    """Objects of every kind that somebody else made; kind → the name that its object has there."""
    await _on_redis(four, own)
    await _on_kafka(kafka_broker, own)
    await _on_minio(four, own)
    await _on_search(four, own)
    named = {kind.setting_type: own for service in SERVICES.values() for kind in service.kinds}
    named |= {"queue.acl": f"User:{own}-b", "queue.quota": f"client-id={own}", "storage.access_key": f"{own}-k"}
    named |= {"cache.redis_config": "*", "search.cluster_settings": "*"}
    return {kind: name for kind, name in named.items() if kind not in NOT_HERE}


async def _on_redis(four: FourServices, own: str) -> None:
    await four.redis.execute_command("ACL", "SETUSER", own, "on", f">{PASSWORD}", "~page:*", "+@read", "-@dangerous")
    await four.redis.config_set("maxmemory-samples", "7")


async def _on_kafka(broker: Any, own: str) -> None:
    rights = {"resource": "topic", "name": own, "operations": ["read", "describe"]}
    async with queue_world.world(broker) as w:
        w.secrets.known["APP"] = PASSWORD
        await w.converge("queue.topic", {"partitions": 2, "config": {"retention.ms": 3_600_000}}, own)
        user = {"password": {"from_env": "APP"}, "acls": [rights], "quotas": {"producer_byte_rate": 1e6}}
        await w.converge("queue.user", user, own)
        await w.converge("queue.acl", {"principal": f"User:{own}-b", "acls": [{**rights, "host": "10.0.0.1"}]})
        await w.converge("queue.quota", {"client_id": own, "quotas": {"consumer_byte_rate": 2e6}})


async def _on_minio(four: FourServices, own: str) -> None:
    four.minio.secrets.known["APP"] = PASSWORD
    secret = {"from_env": "APP"}
    await four.minio.settled("storage.bucket", {"bucket": own, "versioning": "enabled", "tags": {"a": "1"}})
    await four.minio.settled("storage.policy", {"policy": own, "document": reads(own)})
    await four.minio.settled("storage.group", {"group": own, "policies": [own]})
    await four.minio.settled("storage.user", {"access_key": own, "secret_key": secret, "policies": [own]})
    await four.minio.settled(
        "storage.access_key", {"access_key": f"{own}-k", "user": own, "secret_key": secret, "policy": reads(own)}
    )


async def _on_search(four: FourServices, own: str) -> None:
    ask = four.search.wire.ask
    mapping = {"properties": {"title": {"type": "text"}, "stock": {"type": "long"}}}
    bodies: dict[str, dict[str, Any]] = {
        f"/{own}": {"mappings": mapping, "settings": {"number_of_replicas": 0, "refresh_interval": "5s"}},
        f"/_component_template/{own}": {"template": {"settings": {"number_of_shards": 1}}},
        f"/_index_template/{own}": {"index_patterns": [f"{own}-x-*"], "composed_of": [own], "priority": 7},
        f"/_ingest/pipeline/{own}": {"processors": [{"trim": {"field": "title"}}]},
        f"/_scripts/{own}": {"script": {"lang": "painless", "source": "doc['stock'].value * 2"}},
        f"/_snapshot/{own}": {"type": "fs", "settings": {"location": own}},
        f"/_security/role/{own}": {"indices": [{"names": [own], "privileges": ["read"]}]},
        f"/_security/user/{own}": {"password": PASSWORD, "roles": [own], "full_name": "Somebody"},
        "/_cluster/settings": {"persistent": {"search.default_search_timeout": "50s"}},
    }
    for path, body in bodies.items():
        await ask("PUT", path, body)
    await ask("PUT", f"/{own}/_doc/1", {"title": "shoe", "stock": 1}, params={"refresh": "true"})
    await ask("POST", "/_aliases", {"actions": [{"add": {"index": own, "alias": f"{own}-both"}}]})


async def imported(four: FourServices, kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Declarations of what was made, with the places of their secrets filled in."""
    found: list[dict[str, Any]] = []
    for kind, name in kinds.items():
        target = next(t for t in TARGETS if t.startswith(kind.partition(".")[0])).partition("/")[2]
        answer = await four.client.discover(kind, target, name)
        assert answer["skipped"] == [], (kind, answer["skipped"])
        assert len(answer["settings"]) == 1, (kind, answer)
        found += answer["settings"]
    for one in found:
        for field in ("password", "secret_key"):
            if field in one["value"]:
                one["value"][field] = SECRET
    return found


async def test_what_others_made_is_taken_over_without_a_write(four: FourServices, kafka_broker: Any) -> None:
    kinds = await made_by_others(four, kafka_broker, unique("found"))
    before = await four.traces()
    settings = await imported(four, kinds)
    assert {one["type"] for one in settings} == kinds.keys()
    # Nobody can tell whether the password of a user of Kafka is the one named: it isn't taken over unasked.
    settings = [one for one in settings if one["type"] != "queue.user"]
    plan = await four.client.plan(settings)
    assert (plan["steps"], plan["unknown"], plan["refused"]) == ([], [], [])
    await four.client.apply(settings)
    for one in settings:
        await until(lambda o=one: ready(four, o["type"], o["name"]), DEADLINE_S, f"{one['type']} is Ready")
    assert await four.traces() == before
    started = (await four.client.events(event_type="ActionStarted", limit=100))["items"]
    assert started == []
    await _away(four, kinds)


def test_every_kind_is_imported_or_it_is_said_why_not() -> None:
    every = {kind.setting_type for service in SERVICES.values() for kind in service.kinds}
    assert NOT_HERE.keys() <= every


RULE = {"ID": "tmp", "Status": "Enabled", "Filter": {"Prefix": "tmp/"}, "Expiration": {"Days": 7}}
RULE_XML = (
    "<LifecycleConfiguration><Rule><ID>tmp</ID><Status>Enabled</Status><Filter><Prefix>tmp/</Prefix></Filter>"
    "<Expiration><Days>7</Days></Expiration></Rule></LifecycleConfiguration>"
)


async def files_of_others(four: FourServices, own: str) -> list[tuple[str, str, str]]:
    """(target, name, text): what other tools wrote into files of what they made. The body of PUT /INDEX is its own name."""
    await _on_search(four, own)
    ask = four.search.wire.ask
    public = {"Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": ["s3:GetObject"]}
    access = {"Version": "2012-10-17", "Statement": [{**public, "Resource": [f"arn:aws:s3:::{own}/*"]}]}
    await four.minio.settled("storage.bucket", {"bucket": own})
    await four.minio.settled("storage.policy", {"policy": own, "document": reads(own)})
    await four.minio.put_raw(own, "lifecycle", RULE_XML)
    await four.minio.put_raw(own, "policy", access)
    return [
        ("minio", own, json.dumps({"Rules": [RULE]})),
        ("minio", own, json.dumps(access)),
        ("minio", own, json.dumps(reads(own))),
        ("elasticsearch", own, json.dumps(await ask("GET", f"/{own}"))),
        ("elasticsearch", own, json.dumps(await ask("GET", f"/_index_template/{own}"))),
    ]


async def test_what_other_tools_made_is_taken_over_from_their_files_without_a_write(four: FourServices) -> None:
    """Strimzi's are in test_queue_import, those of Redis in test_import."""
    own = unique("file")
    files = await files_of_others(four, own)
    before = await four.traces()
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for target, name, text in files:
        for one in (await four.client.convert(text, target, name=name))["settings"]:
            known = found.setdefault((one["type"], one["name"]), one)
            known["value"] |= one["value"]
    assert {kind for kind, _ in found} == {"storage.bucket", "storage.policy", "search.index", "search.index_template"}
    plan = await four.client.plan(list(found.values()))
    assert (plan["steps"], plan["unknown"], plan["refused"]) == ([], [], [])
    await four.client.apply(list(found.values()))
    for kind, name in found:
        await until(lambda k=kind, n=name: ready(four, k, n), DEADLINE_S, f"{kind} is Ready")
    assert await four.traces() == before
    assert (await four.client.events(event_type="ActionStarted", limit=100))["items"] == []
    await _away(four, {"search.index": own})


async def test_a_plan_of_changes_to_everything_touches_nothing(four: FourServices, kafka_broker: Any) -> None:
    own, other = unique("planned"), unique("other")
    kinds = await made_by_others(four, kafka_broker, own)
    before = await four.traces()
    settings = [changed(one) for one in await imported(four, kinds)]
    new = [{**one, "name": f"{one['name']}-new"} for one in _new(other)]
    plan = await four.client.plan([*settings, *new])
    assert plan["unknown"] == []
    stepped = {step["setting"].split("/")[1] for step in plan["steps"]}
    assert stepped >= kinds.keys() - {"cache.redis_config"}, kinds.keys() - stepped
    assert await four.traces() == before
    await _away(four, kinds)


CHANGES: dict[str, dict[str, Any]] = {
    "cache.redis_user": {"commands": ["+@all"]},
    "queue.topic": {"partitions": 3},
    "queue.user": {"quotas": {"producer_byte_rate": 5.0}},
    "queue.acl": {"acls": []},
    "queue.quota": {"quotas": {"consumer_byte_rate": 5.0}},
    "storage.bucket": {"tags": {"a": "2"}},
    "storage.policy": {"document": reads("elsewhere")},
    "storage.group": {"policies": []},
    "storage.user": {"policies": []},
    "storage.access_key": {"description": "changed"},
    "search.index": {"mappings": {"properties": {"stock": {"type": "integer"}}}},
    "search.component_template": {"template": {"settings": {"number_of_shards": 2}}},
    "search.index_template": {"priority": 9},
    "search.alias": {"filter": {"term": {"stock": 1}}},
    "search.pipeline": {"processors": []},
    "search.script": {"source": "1"},
    "search.repository": {"settings": {"location": "elsewhere"}},
    "search.role": {"indices": []},
    "search.user": {"full_name": "Another"},
    "search.cluster_settings": {"settings": {"search.default_search_timeout": "40s"}},
}


def changed(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "policy": {"adopt": "always"}, "value": {**one["value"], **CHANGES.get(one["type"], {})}}


def _new(name: str) -> list[dict[str, Any]]:
    return [
        {"type": "cache.redis_user", "name": name, "value": {"target": "redis", "passwords": [SECRET]}},
        {
            "type": "cache.namespace",
            "name": name,
            "value": {"prefix": name, "layers": [{"target": "redis", "ttl_s": 9}]},
        },
        {"type": "queue.topic", "name": name, "value": {"target": "kafka", "partitions": 1}},
        {"type": "storage.bucket", "name": name, "value": {"target": "minio"}},
        {"type": "search.index", "name": name, "value": {"target": "elasticsearch"}},
    ]


async def _away(four: FourServices, kinds: dict[str, str]) -> None:
    """What is of the whole server, which others use too."""
    await four.search.wire.ask("PUT", "/_cluster/settings", {"persistent": {"search.default_search_timeout": None}})
    for path in ("_index_template", "_component_template", "_security/user", "_security/role", "_snapshot", ""):
        await four.search.wire.ask("DELETE", f"/{path}/{kinds['search.index']}".replace("//", "/"), absent=None)

"""Strimzi's `KafkaTopic` and `KafkaUser` (kafka.strimzi.io/v1beta2, v1) as declarations. Pure.

A user that logs in by SCRAM becomes a `queue.user`; its password is in a Secret of Kubernetes, so the declaration holds a
reference that stands for it. One that logs in by a certificate has no password here: its permissions become a `queue.acl` of
the principal `User:CN=NAME`, its quotas a `queue.quota`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from reconcilers.contract import Discovered, FileFormat
from reconcilers.discovery import setting_name
from reconcilers.manifests import listed, maps, part
from reconcilers.queue import access, model

_OURS: Final = re.compile(r"\bkind\"?\s*:\s*\"?Kafka(Topic|User)\b")
_API: Final = "kafka.strimzi.io"
_CAPITAL: Final = re.compile(r"(?<!^)(?=[A-Z])")

Found = tuple[str, Discovered]


def read(text: str, _name: str) -> Sequence[Found]:
    """Every topic and user; documents of other kinds are passed over. Raises ValueError."""
    return [found for document in maps(text) for found in _read(document)]


def _read(document: Mapping[str, Any]) -> Iterator[Found]:
    if not str(document.get("apiVersion", "")).startswith(_API):
        return
    name = str(part(document, "metadata").get("name", ""))
    if document.get("kind") == "KafkaTopic":
        yield _topic(name, part(document, "spec"))
    elif document.get("kind") == "KafkaUser":
        yield from _user(name, part(document, "spec"))


def _topic(name: str, spec: Mapping[str, Any]) -> Found:
    topic = str(spec.get("topicName") or name)
    setting = setting_name(name)
    value: dict[str, Any] = {} if topic == setting else {"topic": topic}
    given = {
        "partitions": spec.get("partitions"),
        "replication_factor": spec.get("replicas"),
        "config": spec.get("config"),
    }
    value |= {field: held for field, held in given.items() if held is not None}
    return model.TOPIC, Discovered(setting, value)


def _user(name: str, spec: Mapping[str, Any]) -> Iterator[Found]:
    kind, setting = part(spec, "authentication").get("type"), setting_name(name)
    acls = [_permission(acl) for acl in listed(part(spec, "authorization").get("acls"))]
    quotas = {_snake(field): rate for field, rate in part(spec, "quotas").items()}
    if kind == "scram-sha-512":
        yield access.USER, _scram(name, setting, acls if "authorization" in spec else None, quotas)
        return
    principal = f"CN={name}" if kind in ("tls", "tls-external") else name
    if acls:
        yield access.ACL, Discovered(setting, {"principal": f"User:{principal}", "acls": acls})
    if quotas:
        yield access.QUOTA, Discovered(setting, {"user": principal, "quotas": quotas})


def _scram(name: str, setting: str, acls: Sequence[Any] | None, quotas: Mapping[str, Any]) -> Discovered:
    variable = f"KAFKA_{re.sub(r'[^A-Z0-9]+', '_', name.upper())}_PASSWORD"
    value: dict[str, Any] = {} if name == setting else {"username": name}
    value |= {"mechanism": "SCRAM-SHA-512", "password": {"from_env": variable}}
    value |= {} if acls is None else {"acls": list(acls)}
    value |= {"quotas": dict(quotas)} if quotas else {}
    hint = f"it is in the Secret {name} of Kubernetes: give it to the daemon in {variable}, or name another place"
    return Discovered(setting, value, {"/password": hint})


def _permission(acl: Any) -> dict[str, Any]:
    resource = part(acl, "resource") if isinstance(acl, Mapping) else {}
    kind = _snake(str(resource.get("type", "")))
    permission: dict[str, Any] = {"resource": kind}
    permission |= {"name": resource["name"]} if resource.get("name") is not None and kind != "cluster" else {}
    permission |= {"pattern": "prefixed"} if resource.get("patternType") == "prefix" else {}
    operations = listed(acl.get("operations") or acl.get("operation")) if isinstance(acl, Mapping) else []
    permission["operations"] = [_snake(str(one)) for one in operations]
    permission |= {"permission": "deny"} if part({"acl": acl}, "acl").get("type") == "deny" else {}
    host = part({"acl": acl}, "acl").get("host")
    return permission | ({"host": host} if host not in (None, "*") else {})


def _snake(name: str) -> str:
    """`transactionalId` and `TransactionalId` → `transactional_id`."""
    return _CAPITAL.sub("_", name).lower()


STRIMZI: Final = FileFormat("strimzi", lambda text: _API in text and _OURS.search(text) is not None, read)

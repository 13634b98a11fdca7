"""A Kafka and an Elasticsearch that are reached by TLS, under an authority that no system knows."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import trustme
from cryptography.hazmat.primitives import serialization

from controlplane.devstack import elasticsearch, kafka
from controlplane.devstack.backend import Place
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.ports import LOOPBACK, any_free, listener
from tests.servers import SharedServer, program_of, started

CLERK_PASSWORD = "open sesame"
"""Of `clerk`, who logs in by PLAIN."""
_PEM, _KEY = "server.pem", "server.key"
_PLAIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_clerk="{CLERK_PASSWORD}";'


@dataclass(frozen=True)
class SecuredKafka:
    """A broker with TLS listeners beside those of the devstack's."""

    server: SharedServer
    ca_file: Path
    tls: str
    """host:port of the listener with TLS that lets everybody in."""
    sasl_tls: str
    """host:port of the one that asks who one is, by SCRAM or PLAIN."""

    def target(self, **security: Any) -> dict[str, Any]:
        """By TLS with the right authority; how else is said by `security`."""
        server = self.sasl_tls if security.get("protocol") == "SASL_SSL" else self.tls
        return {"bootstrap_servers": server, "security": {"ca_file": str(self.ca_file), **security}}


def secured_kafka_in(folder: Path, guardian: Guardian) -> SecuredKafka:
    """In the folder; whoever starts it ends its `server`."""
    authority = _authority(folder)
    ports = any_free(), any_free()

    def prepare(place: Place) -> None:
        kafka.prepare(place)
        _issue(authority, place.home / _PEM, place.home / _PEM)
        path = place.home / kafka.PROPERTIES
        path.write_text(_kafka_with_tls(path.read_text(), place.home / _PEM, *ports))

    async def start() -> Any:
        backend = replace(kafka.KAFKA, prepare=prepare)
        return await started(backend, folder, await program_of(kafka.KAFKA), guardian)

    return SecuredKafka(SharedServer(start), folder / "ca.pem", *(f"{LOOPBACK}:{port}" for port in ports))


@dataclass(frozen=True)
class SecuredElasticsearch:
    """A node that speaks TLS only. `server.url` begins with https."""

    server: SharedServer
    ca_file: Path


def secured_elasticsearch_in(folder: Path, guardian: Guardian) -> SecuredElasticsearch:
    """In the folder; whoever starts it ends its `server`."""
    authority = _authority(folder)
    ca_file = folder / "ca.pem"

    def prepare(place: Place) -> None:
        elasticsearch.prepare(place)
        configuration = place.home / "config"
        _issue(authority, configuration / _PEM, configuration / _KEY)
        path = configuration / "elasticsearch.yml"
        path.write_text(_elasticsearch_with_tls(path.read_text()))

    async def start() -> Any:
        backend = replace(
            elasticsearch.ELASTICSEARCH, scheme="https", prepare=prepare, probe=partial(_probe_by_tls, ca_file)
        )
        return await started(backend, folder, await program_of(backend), guardian)

    return SecuredElasticsearch(SharedServer(start), ca_file)


async def _probe_by_tls(ca_file: Path, port: int) -> int:
    """As the one of the devstack."""
    trusted = ssl.create_default_context(cafile=ca_file)
    reader, writer = await asyncio.open_connection(LOOPBACK, port, ssl=trusted)
    try:
        writer.write(elasticsearch.PROBE)
        status = await reader.readline()
    finally:
        writer.transport.abort()
    if status.split()[1:2] not in ([b"200"], [b"401"]):
        raise EOFError(status.decode(errors="replace"))
    return os.getsid(listener(port))


def _authority(folder: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return authority


def _issue(authority: trustme.CA, certificate: Path, key: Path) -> None:
    """A certificate of 127.0.0.1 and its key, in one file or two; the key in the one form that Kafka reads."""
    made = authority.issue_cert(LOOPBACK)
    form = serialization.PrivateFormat.PKCS8
    loaded = serialization.load_pem_private_key(made.private_key_pem.bytes(), None)
    key.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    for number, pem in enumerate(made.cert_chain_pems):
        pem.write_to_path(certificate, append=certificate == key or number > 0)


def _kafka_with_tls(properties: str, keystore: Path, tls: int, sasl_tls: int) -> str:
    more = f"SSL://{LOOPBACK}:{tls},SASL_SSL://{LOOPBACK}:{sasl_tls},"
    text = re.sub(r"^((?:advertised\.)?listeners=)", rf"\1{more}", properties, flags=re.M)
    text = re.sub(r"^(listener\.security\.protocol\.map=.*)$", r"\1,SSL:SSL,SASL_SSL:SASL_SSL", text, flags=re.M)
    text = re.sub(r"^(sasl\.enabled\.mechanisms=.*)$", r"\1,PLAIN", text, flags=re.M)
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return (
        text
        + f"""\
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
listener.name.sasl_plaintext.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config={_PLAIN}
listener.name.sasl_ssl.plain.sasl.jaas.config={_PLAIN}
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={scram}
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram}
super.users=User:ANONYMOUS;User:{kafka.ADMIN};User:clerk
"""
    )


def _elasticsearch_with_tls(settings: str) -> str:
    served = f"""\
xpack.security.http.ssl.enabled: true
xpack.security.http.ssl.certificate: {_PEM}
xpack.security.http.ssl.key: {_KEY}
"""
    return settings.replace("xpack.security.http.ssl.enabled: false\n", served)

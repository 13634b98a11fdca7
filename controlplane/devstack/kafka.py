"""Kafka: one node, broker and controller in one process (KRaft), on loopback.

Two listeners. PLAINTEXT is open to everybody on this machine and may do everything, as Redis's `default` may: Coreplane's own
log goes there. SASL_PLAINTEXT asks for SCRAM and obeys ACLs, so that what is declared about users and permissions is
enforced somewhere. The directory is formatted once, with the administrator `admin` and a generated password; the format and
the server are started by one shell that becomes the server, so that the process is known from the beginning.

The defaults of Kafka are for clusters: with one node every internal topic has one replica. Memory is bounded to 384 MB.

Note [Nobody to hand over to]. A broker that shuts down first gives its partitions to others. Alone it can only withdraw from
them, while it still takes records, and transactions that it says are committed in those moments aren't (4.3.1, see
`kafka_shard`): so it doesn't.

Note [First in the hash table]. A broker that starts without a snapshot folds the whole metadata log into one change, and when
a user that was removed comes before all others in it, every credential of its mechanism is dropped (4.3.1,
`ScramDelta.apply`), the administrator's as well. The order is that of Java's hash table, so a user whose hash is 0, made at
the format and never removed, comes first and keeps the others. Nobody knows its password.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import uuid
from pathlib import Path
from typing import Any, Final

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from controlplane.devstack import secrets
from controlplane.devstack.backend import Backend, Place, Recipe
from controlplane.devstack.ports import LOOPBACK, free_or_any, listener

ADMIN: Final = "admin"
ADMIN_SECRET: Final = "kafka-admin"  # noqa: S105 - the name of a file
FIRST: Final = "first-muftmio"
"""Note [First in the hash table]"""
PROPERTIES: Final = "kraft.properties"
FORMAT: Final = "format.args"
MEMORY: Final = "-Xms128m -Xmx384m -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
LOGGING: Final = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Dorg.slf4j.simpleLogger.showDateTime=true"
START: Final = f"""\
set -e
java=$1
shift
[ -f data/meta.properties ] || "$java" {LOGGING} @{FORMAT} >/dev/null
rm -f {FORMAT}
exec "$java" {MEMORY} {LOGGING} kafka.Kafka {PROPERTIES} "$@"
"""
METADATA_MS: Final = 1500
_SASL = re.compile(r"^listeners=.*SASL_PLAINTEXT://[^:]+:(\d+),CONTROLLER://[^:]+:(\d+)$", re.MULTILINE)


def prepare(place: Place) -> None:
    """The configuration, and what the first format needs. Its other two ports stay the same while that is possible."""
    place.home.mkdir(parents=True, exist_ok=True)
    properties = place.home / PROPERTIES
    known = _SASL.search(properties.read_text(encoding="utf-8")) if properties.exists() else None
    sasl, controller = (free_or_any(int(known[number]) if known else 0) for number in (1, 2))
    properties.write_text(_properties(place, sasl, controller), encoding="utf-8")
    if not (place.home / "data" / "meta.properties").exists():
        _write_format(place)


def command(place: Place, program: Path) -> list[str]:
    """A shell that formats the directory if that is to be done, and becomes the server."""
    del place  # it runs there
    return ["/bin/sh", "-c", START, "kafka", str(program)]


async def probe(port: int) -> int:
    """Asks the broker for the brokers of its cluster, as every client does first; then the system who listens there."""
    _, writer = await asyncio.open_connection(LOOPBACK, port)  # a refused connection is no news for aiokafka's log
    writer.close()
    client = AIOKafkaClient(bootstrap_servers=f"{LOOPBACK}:{port}", request_timeout_ms=METADATA_MS)
    try:
        await client.bootstrap()
        if not client.cluster.brokers():
            msg = "no broker has joined yet"
            raise EOFError(msg)
    except KafkaError as exc:
        raise EOFError(str(exc)) from exc
    finally:
        await client.close()
    return listener(port)


def sasl_port(place: Place) -> int:
    """Of the listener that asks who one is."""
    found = _SASL.search((place.home / PROPERTIES).read_text(encoding="utf-8"))
    if found is None:
        msg = f"{place.home / PROPERTIES} names no listener with SASL"
        raise ValueError(msg)
    return int(found[1])


def target(url: str) -> dict[str, Any]:
    """There is nothing but the address: the listener of the machine may do everything."""
    return {"bootstrap_servers": url.removeprefix("kafka://")}


def _write_format(place: Place) -> None:
    """Arguments in a file of our own: a password on a command line is read by everybody on the machine."""
    password = secrets.ensure(place.data_dir, ADMIN_SECRET)
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
    arguments = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", PROPERTIES]
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
        for name, its_password in ((FIRST, uuid.uuid4().hex), (ADMIN, password)):
            arguments += ["--add-scram", f"{mechanism}=[name={name},password={its_password}]"]
    path = place.home / FORMAT
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write("\n".join(f'"{argument}"' for argument in arguments) + "\n")


def _properties(place: Place, sasl: int, controller: int) -> str:
    plain = f"PLAINTEXT://{LOOPBACK}:{place.port},SASL_PLAINTEXT://{LOOPBACK}:{sasl}"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    return f"""\
# Written by Coreplane's devstack before every start.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{LOOPBACK}:{controller}
listeners={plain},CONTROLLER://{LOOPBACK}:{controller}
advertised.listeners={plain}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config={scram}
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config={scram}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
# ANONYMOUS: whoever comes by the open listener, and the controller.
super.users=User:ANONYMOUS;User:{ADMIN}
allow.everyone.if.no.acl.found=false
auto.create.topics.enable=false
log.dirs={place.home / "data"}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
# Note [Nobody to hand over to]
controlled.shutdown.enable=false
num.network.threads=2
num.io.threads=2
background.threads=2
log.cleaner.dedupe.buffer.size=2097152
log.index.size.max.bytes=1048576
"""


KAFKA: Final = Backend(
    recipe=Recipe("kafka", "kafka", ()),
    scheme="kafka",
    preferred_port=9092,
    prepare=prepare,
    command=command,
    probe=probe,
    target=target,
    given_target=target,
    target_name="main",
    ready_s=120.0,
    stop_s=30.0,
    later=True,
)

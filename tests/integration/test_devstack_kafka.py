"""The devstack's Kafka: found, formatted once, stopped in order, and strict where it asks who one is."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from kafka.admin import KafkaAdminClient, UserScramCredentialDeletion, UserScramCredentialUpsertion

from controlplane.devstack import kafka, kafka_program, secrets
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.progress import silent
from controlplane.devstack.provision import Machine, this_machine
from controlplane.devstack.stack import Stack
from controlplane.log.kafka import open_kafka
from tests.servers import program_of, started

MECHANISMS = ("SCRAM-SHA-256", "SCRAM-SHA-512")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


async def test_a_stack_with_kafka_as_infrastructure_runs_it_and_declares_no_target_for_it(tmp_path: Path):
    machine = this_machine()
    environment = {name: text for name, text in machine.environment.items() if not name.endswith("_URL")}
    ours = Machine(environment, machine.cache_dir, machine.privileged)
    async with Stack(tmp_path, ("cache",), silent, ours, infrastructure=(kafka.KAFKA,)) as stack:
        assert [one["name"] for one in stack.backends()] == ["kafka", "redis", "memcached"]
        assert {declared["name"] for declared in stack.targets()} == {"redis", "memcached"}
        log = await open_kafka(stack.url("kafka"), shards=2)
        await log.settings.append(b"kept")
        await log.close()
    async with Stack(tmp_path, ("cache",), silent, ours, infrastructure=(kafka.KAFKA,)) as stack:
        log = await open_kafka(stack.url("kafka"), shards=2)
        assert [record.data for record in await log.settings.read(0)] == [b"kept"]
        await log.close()
    told = (tmp_path / "logs" / "kafka.log").read_text()
    assert "FATAL" not in told


async def test_the_strict_listener_takes_the_administrator_and_nobody_else(tmp_path: Path, guardian: Guardian):
    server = await started(kafka.KAFKA, tmp_path, await program_of(kafka.KAFKA), guardian)
    strict = f"127.0.0.1:{kafka.sasl_port(server.place)}"
    password = secrets.ensure(server.place.data_dir, kafka.ADMIN_SECRET)
    for mechanism in MECHANISMS:
        producer = client(strict, mechanism, password)
        await producer.start()
        await producer.stop()
    producer = client(strict, "SCRAM-SHA-512", "wrong")
    with pytest.raises(KafkaConnectionError):
        await producer.start()
    await producer.stop()
    assert not (server.place.home / kafka.FORMAT).exists(), "the password of the format isn't left behind"
    await server.kill()


async def test_users_that_were_removed_take_nobody_with_them_when_the_broker_starts_again(
    tmp_path: Path, guardian: Guardian
):
    server = await started(kafka.KAFKA, tmp_path, await program_of(kafka.KAFKA), guardian)
    admin = KafkaAdminClient(bootstrap_servers=server.url.removeprefix("kafka://"))
    names = [f"user-{number}" for number in range(50)]
    for mechanism in MECHANISMS:
        for change in (lambda *one: UserScramCredentialUpsertion(*one, "secret"), UserScramCredentialDeletion):
            errors = admin.alter_user_scram_credentials([change(name, mechanism) for name in names])
            assert not any(errors.values()), errors
    admin.close()
    await server.kill()
    await server.start()
    password = secrets.ensure(server.place.data_dir, kafka.ADMIN_SECRET)
    for mechanism in MECHANISMS:
        producer = client(f"127.0.0.1:{kafka.sasl_port(server.place)}", mechanism, password)
        await producer.start()
        await producer.stop()
    await server.kill()


def client(servers: str, mechanism: str, password: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(
        bootstrap_servers=servers,
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism=mechanism,
        sasl_plain_username=kafka.ADMIN,
        sasl_plain_password=password,
    )


def test_the_downloaded_libraries_are_those_of_the_version_that_is_named():
    found = this_machine().cache_dir / kafka_program.NAME / kafka_program.VERSION
    assert kafka_program.version_of(found) == kafka_program.VERSION

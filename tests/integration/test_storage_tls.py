"""A MinIO that speaks TLS only: who it is gets checked, and everything works as without."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import trustme

from controlplane.devstack import minio
from controlplane.devstack.backend import Backend
from controlplane.devstack.guardian import Guardian
from controlplane.devstack.minio import MINIO
from controlplane.devstack.ports import LOOPBACK, listener
from reconcilers.contract import StreamAnswer, StreamRequest, TerminalError
from tests.integration.storage_world import BUCKET, FIRST, USER, World, fresh, login, with_passwords, world
from tests.servers import SharedServer, program_of, started

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

CHUNK = bytes(range(256)) * 4096
CHUNKS = 20


def speaking_tls(authority: trustme.CA, folder: Path) -> Backend:
    """With a certificate of 127.0.0.1, and of no other name."""
    made = authority.issue_cert(LOOPBACK)
    folder.mkdir()
    made.private_key_pem.write_to_path(folder / "private.key")
    made.cert_chain_pems[0].write_to_path(folder / "public.crt")
    context = ssl.create_default_context()
    authority.configure_trust(context)

    async def probe(port: int) -> int:
        _, writer = await asyncio.open_connection(LOOPBACK, port, ssl=context)
        writer.close()
        return listener(port)

    def command(place: Any, program: Path) -> list[str]:
        plain = minio.command(place, program)
        return [*plain[:2], "--certs-dir", str(folder), *plain[2:]]

    return replace(MINIO, scheme="https", command=command, probe=probe)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The same server under another URL."""

    url: str
    place: Any


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tls")


@pytest.fixture(scope="module")
def tls_server(folder: Path, guardian: Guardian, minio_program: Any) -> Iterator[SharedServer]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other.pem")
    backend = speaking_tls(authority, folder / "certs")

    async def start() -> Any:
        return await started(backend, folder, await program_of(MINIO), guardian)

    server = SharedServer(start)
    yield server
    server.end()


async def body() -> AsyncIterator[bytes]:
    for _ in range(CHUNKS):
        yield CHUNK


async def read(answer: StreamAnswer) -> int:
    assert answer.body is not None
    return sum([len(chunk) async for chunk in answer.body])


async def declared_and_streamed(w: World) -> None:
    bucket = fresh("tls")
    await w.settled(BUCKET, {"bucket": bucket, "versioning": "enabled", "tags": {"a": "b"}})
    await w.settled(USER, {"access_key": fresh("u"), "secret_key": FIRST, "policies": ["readonly"]})
    path, size = f"{bucket}/o", CHUNKS * len(CHUNK)
    async with w.backend.stream(StreamRequest("PUT", path, {}, body=body(), size_bytes=size)) as put:
        assert put.status == 200
    async with w.backend.stream(StreamRequest("GET", path, {})) as get:
        assert await read(get) == size
    assert "capacity_bytes" in {one.metric_type for one in await w.backend.sample()}


async def test_a_server_whose_certificate_is_trusted_is_driven_and_streamed_to(tls_server: Any, folder: Path):
    async with world(tls_server, with_passwords(tls_server), tls={"ca_file": str(folder / "ca.pem")}) as w:
        await declared_and_streamed(w)


async def test_an_unchecked_server_is_driven_too(tls_server: Any):
    async with world(tls_server, with_passwords(tls_server), tls={"verify": False}) as w:
        await declared_and_streamed(w)


@pytest.mark.parametrize(
    ("host", "ca", "said"),
    [
        (LOOPBACK, None, "unable to get local issuer certificate"),
        (LOOPBACK, "other.pem", "unable to get local issuer certificate"),
        ("localhost", "ca.pem", "localhost"),
    ],
)
async def test_a_certificate_that_proves_nothing_is_said(
    tls_server: Any, folder: Path, host: str, ca: str | None, said: str
):
    more = {"tls": {"ca_file": str(folder / ca)}} if ca is not None else {}
    there = Elsewhere(tls_server.url.replace(LOOPBACK, host), tls_server.place)
    with pytest.raises(TerminalError, match=said) as caught:
        async with world(there, login(tls_server), **more):
            pass
    assert caught.value.reason == "CertificateNotTrusted"


async def test_an_authority_that_is_not_there_is_said(tls_server: Any, folder: Path):
    with pytest.raises(TerminalError, match=r"nowhere\.pem") as caught:
        async with world(tls_server, login(tls_server), tls={"ca_file": str(folder / "nowhere.pem")}):
            pass
    assert caught.value.reason == "InvalidCaFile"


async def test_a_server_that_wants_tls_says_so_to_whom_comes_without(tls_server: Any):
    there = Elsewhere(tls_server.url.replace("https", "http"), tls_server.place)
    with pytest.raises(TerminalError, match="HTTPS"):
        async with world(there, login(tls_server)):
            pass

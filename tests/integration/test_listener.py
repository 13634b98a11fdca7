"""The listener as attackers and browsers meet it: TLS, limits, headers."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import trustme

from controlplane.api.listener import Certificate
from controlplane.api.routes import ROUTES
from controlplane.config import TlsConfig
from tests.integration.api_daemon import BASE, REDIS, TARGET, Api, daemon
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration


def issue(authority: trustme.CA, folder: Path) -> TlsConfig:
    """A new certificate of 127.0.0.1, in place of the one before."""
    made = authority.issue_cert("127.0.0.1", "localhost")
    config = TlsConfig(cert_file=folder / "tls.crt", key_file=folder / "tls.key")
    made.cert_chain_pems[0].write_to_path(config.cert_file)
    made.private_key_pem.write_to_path(config.key_file)
    return config


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_the_daemon_speaks_tls_and_nothing_else_when_it_is_configured(tmp_path: Path) -> None:
    authority = trustme.CA()
    config = issue(authority, tmp_path)
    process = DaemonProcess(tmp_path / "coreplane", {})
    process.content = {"http": {"port": 0, "tls": {name: str(path) for name, path in config}}}
    await process.start()
    try:
        assert process.url.startswith("https://")
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        environment = {**os.environ, "SSL_CERT_FILE": str(tmp_path / "ca.pem"), "COREPLANE_URL": process.url}
        command = (sys.executable, "-m", "controlplane", "status", "-o", "json")
        typed = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, timeout=60)
        assert typed.returncode == 0, typed.stderr
        async with aiohttp.ClientSession() as plain:
            with pytest.raises(aiohttp.ClientError):
                await plain.get(process.url.replace("https", "http") + "/healthz")
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await plain.get(process.url + "/healthz", ssl=trusting(trustme.CA()))
            answered = await plain.get(process.url + "/healthz", ssl=trusting(authority))
            assert "max-age" in answered.headers["Strict-Transport-Security"]
    finally:
        await process.clean_up()


async def test_a_new_certificate_is_used_without_a_restart_and_half_a_one_is_not(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    certificate = Certificate(issue(authority, tmp_path))
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, ssl=certificate.context)
    port = server.sockets[0].getsockname()[1]

    async def trusted(by: trustme.CA) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(by))
        except ssl.SSLCertVerificationError:
            return False
        writer.close()
        return True

    async with server:
        assert await trusted(authority)
        assert not await certificate.look()
        whole = (tmp_path / "tls.key").read_bytes()
        other.issue_cert("127.0.0.1").private_key_pem.write_to_path(tmp_path / "tls.key")
        assert not await certificate.look(), "a key that isn't the certificate's"
        assert await trusted(authority)
        (tmp_path / "tls.key").write_bytes(whole)
        issue(other, tmp_path)
        assert await certificate.look()
        assert await trusted(other)
        assert not await trusted(authority)


def test_a_certificate_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"http\.tls"):
        Certificate(TlsConfig(cert_file=tmp_path / "none.crt", key_file=tmp_path / "none.key"))


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with daemon() as running:
        yield running


async def test_every_answer_tells_browsers_to_take_it_for_what_it_is(api: Api) -> None:
    for route in ROUTES:
        path = route.path.format(
            tenant="default",
            type="cache.target",
            name="x",
            service="cache",
            operation="cache.echo",
            file="app.js",
            target="main",
            path="a",
        )
        response = await api.client.request(route.method, path)
        headers = response.headers
        response.close()
        assert headers["X-Content-Type-Options"] == "nosniff", path
        assert headers["X-Frame-Options"] == "DENY", path
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"], path
        assert headers["Cache-Control"] in {"no-store", "no-cache"}, path
        assert headers["Server"] == "coreplane", path


async def test_no_other_origin_gets_to_read_or_to_do_anything(api: Api) -> None:
    await api.put(TARGET, REDIS, 201)
    for origin in ("https://evil.example", "null", "http://localhost:3000"):
        for method, path in (
            ("POST", f"{TARGET}/reconcile"),
            ("POST", f"{BASE}/operations/cache.echo"),
            ("GET", TARGET),
        ):
            response = await api.raw(method, path, headers={"Origin": origin})
            assert response.status == 403, (method, origin)
            assert not [name for name in response.headers if name.startswith("Access-Control-")]
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    assert (await api.raw("OPTIONS", TARGET, headers=preflight)).status in {403, 405}
    assert api.looked.keys == []
    own = f"http://{api.client.server.host}:{api.client.server.port}"
    assert (await api.raw("POST", f"{TARGET}/reconcile", headers={"Origin": own})).status == 202


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    started = DaemonProcess(
        tmp_path / "coreplane", {"http": {"port": 0, "idle_timeout_s": 1.0, "max_header_bytes": 1024}}
    )
    await started.start()
    yield started
    await started.clean_up()


async def said(process: DaemonProcess, data: bytes) -> bytes:
    """All that the daemon answers until it closes the connection."""
    host, _, port = process.url.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    async with asyncio.timeout(60):
        answered = await reader.read()
    writer.close()
    return answered


async def test_heads_that_are_too_long_are_refused_and_slow_ones_are_cut_off(process: DaemonProcess) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    assert b" 200 " in await said(process, head + b"Connection: close\r\n\r\n")
    for more in (b"X-Long: " + b"a" * 2000, b"\r\n".join(b"X-%d: a" % number for number in range(200))):
        assert b" 400 " in (await said(process, head + more + b"\r\n\r\n")).partition(b"\r\n")[0]
    assert b" 400 " in (await said(process, b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\n\r\n")).partition(b"\r\n")[0]
    assert await said(process, head) == b"", "half a head, and then nothing"
    assert await said(process, b"") == b"", "nothing at all"

"""What keeps a daemon from starting is said in words, with what to do about it, and ends with exit code 1."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from controlplane.log import codec
from controlplane.log.ports import LogCorrupt
from controlplane.log.sqlite import open_sqlite
from tests.e2e import audit
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

TARGET = {"value": {"kind": "redis", "url": "redis://127.0.0.1:9"}}


async def said(*arguments: str, code: int = 1, **environment: str) -> str:
    """What `coreplane …` prints on stderr. Nobody is shown a traceback or called a bug."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "controlplane", *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    try:
        async with asyncio.timeout(60):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = err.decode()
    assert process.returncode == code, out.decode() + text
    assert "Traceback" not in text
    assert "bug:" not in text
    return text if code else out.decode()


async def declared(daemon: DaemonProcess, count: int = 20) -> None:
    async with daemon.client() as client:
        for number in range(count):
            await client.put_setting("cache.target", f"t{number}", TARGET, idempotency_key=f"written-{number}")


def inverted(path: Path, position: int, length: int = 64) -> None:
    """Damage: every bit of a stretch turned over."""
    with path.open("r+b") as file:
        file.seek(position)
        rotten = bytes(byte ^ 0xFF for byte in file.read(length))
        file.seek(position)
        file.write(rotten)


async def test_a_second_daemon_on_the_same_data_names_the_first_and_leaves_it_alone(daemon: DaemonProcess) -> None:
    text = await said("serve", "--data", str(daemon.data_dir), "--port", "0")
    assert f"in use by process {daemon.pid}" in text
    assert "stop it first, or use another data directory" in text
    await declared(daemon, 1)


async def test_a_taken_port_is_said_and_how_to_choose_another(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        text = await said("serve", "--data", str(tmp_path / "data"), "--port", str(port))
    assert f"127.0.0.1:{port} is in use" in text
    assert "--port" in text


async def test_a_listener_for_everybody_needs_tokens(tmp_path: Path) -> None:
    text = await said("serve", "--data", str(tmp_path / "data"), "--host", "0.0.0.0")
    assert "0.0.0.0" in text
    assert "auth.tokens" in text
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("log: {url: 'nats://x'}", ("log.url", "sqlite:PATH")),
        ("projection: {url: 'ftp://x'}", ("projection.url", "sqlite:PATH")),
        ("runtime: {sweep: 3}\nhttp: {prt: 1}", ("runtime.sweep", "http.prt")),
        ("- a list", ("a configuration is a map",)),
        ("a: [", ("can't read",)),
    ],
)
async def test_a_configuration_at_fault_is_said_with_its_places(
    tmp_path: Path, content: str, words: tuple[str, ...]
) -> None:
    config = tmp_path / "coreplane.yaml"
    config.write_text(content)
    text = await said("serve", "--config", str(config), "--data", str(tmp_path / "data"), "--port", "0")
    assert all(word in text for word in words), text


async def test_a_data_directory_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("not a directory")
    text = await said("serve", "--data", str(tmp_path / "data"), "--port", "0")
    assert str(tmp_path / "data") in text
    assert "--data" in text


async def test_another_number_of_shards_is_refused(daemon: DaemonProcess) -> None:
    await daemon.stop()
    daemon.content["log"] = {"shards": 4}
    with pytest.raises(AssertionError, match=r"16 shards .* log\.shards"):
        await daemon.start()
    await daemon.kill()


async def test_a_rotten_end_of_the_log_is_refused_until_its_loss_is_consented_to(daemon: DaemonProcess) -> None:
    await declared(daemon)
    await daemon.kill()  # so that the end is in the write-ahead log
    wal = daemon.data_dir / "coreplane.db-wal"
    inverted(wal, wal.stat().st_size * 3 // 4)
    data = ("--data", str(daemon.data_dir))
    for _ in range(2):
        text = await said("serve", *data, "--port", "0")
        assert f"{daemon.data_dir / 'coreplane.db'}: the log ends at commit" in text
        assert "coreplane doctor --accept-loss" in text
    assert "restore the log from a backup" in await said("doctor", "--rebuild-projection", *data)
    assert "lost" in await said("doctor", "--accept-loss", *data, code=0)
    await daemon.start()
    async with daemon.client() as client:
        assert len([setting async for setting in client.list_settings()]) < 20
        assert (await client.health())["ready"]


async def test_a_rotten_record_of_the_log_is_refused_with_its_place(daemon: DaemonProcess) -> None:
    await declared(daemon)
    await daemon.stop()
    path = daemon.data_dir / "coreplane.db"
    shutil.copy(path, path.with_suffix(".copy"))
    with closing(sqlite3.connect(path)) as connection:
        ((record,),) = connection.execute("SELECT data FROM settings ORDER BY id DESC LIMIT 1")
    inverted(path, path.read_bytes().rindex(record) + len(record) // 2, 8)
    text = await said("serve", "--data", str(daemon.data_dir), "--port", "0")
    assert f"{path}: settings, offset 19" in text
    assert "restore the log from a backup" in text
    shutil.copy(path.with_suffix(".copy"), path)
    await daemon.start()
    async with daemon.client() as client:
        assert len([setting async for setting in client.list_settings()]) == 20


async def test_a_garbled_page_at_the_end_of_the_log_is_never_passed_over_in_silence(daemon: DaemonProcess) -> None:
    await declared(daemon)
    await daemon.stop()
    before = await audit.books(daemon.data_dir)
    path = daemon.data_dir / "coreplane.db"
    inverted(path, path.stat().st_size - 4096, 4096)
    try:
        await daemon.start()
    except AssertionError as refused:
        await daemon.kill()
        assert f"{path}: " in str(refused)
        assert "restore the log from a backup" in str(refused)
        return
    await daemon.stop()
    try:
        after = await audit.books(daemon.data_dir)
    except LogCorrupt as said:
        assert f"{path}: " in str(said)
    else:
        assert after.offsets == before.offsets
        assert {event["id"] for event in before.events} <= {event["id"] for event in after.events}


async def test_a_record_of_a_newer_version_leaves_the_daemon_not_ready_and_is_named(daemon: DaemonProcess) -> None:
    await declared(daemon, 2)
    await daemon.stop()
    log = await open_sqlite(daemon.data_dir / "coreplane.db", shards=16)
    await log.settings.append(codec.encode({"v": 99, "request_id": "from-tomorrow", "changes": []}))
    await log.close()
    await daemon.start()
    async with daemon.client(attempts=1) as client:
        health: dict[str, Any] = await client.health()
        assert not health["ready"]
        assert "offset 2" in str(health)
        assert len([setting async for setting in client.list_settings()]) == 2

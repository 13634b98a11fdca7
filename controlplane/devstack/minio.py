"""MinIO: one node with one drive in a plain folder, on loopback; the administrator is `coreplane` with a generated password.

Versioning, lifecycle, policies and users work on a single drive; replication to itself, tiers and encryption by a key
service don't exist here. Its console is off: nobody needs a second way in. Memory is bounded softly, by Go's own limit.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, Final

from controlplane.devstack import secrets
from controlplane.devstack.backend import Backend, Place, Recipe
from controlplane.devstack.ports import LOOPBACK, listener

ADMIN: Final = "coreplane"
ADMIN_SECRET: Final = "minio-admin"  # noqa: S105 - the name of a file
ADMIN_NAME: Final = "minio-admin-name"
READY: Final = b"GET /minio/health/ready HTTP/1.1\r\nHost: minio\r\nConnection: close\r\n\r\n"


def prepare(place: Place) -> None:
    """A folder for the objects, and the administrator's name and password."""
    (place.home / "data").mkdir(parents=True, exist_ok=True)
    secrets.keep(place.data_dir, ADMIN_NAME, ADMIN)
    secrets.ensure(place.data_dir, ADMIN_SECRET)


def command(place: Place, program: Path) -> list[str]:
    """The console wants an address although it is off."""
    address = f"{LOOPBACK}:{place.port}"
    return [str(program), "server", "--quiet", "--address", address, "--console-address", f"{LOOPBACK}:0", "data"]


def environment(place: Place) -> dict[str, str]:
    """MinIO has no configuration file: it is told by variables."""
    return {
        "MINIO_ROOT_USER": ADMIN,
        "MINIO_ROOT_PASSWORD": secrets.ensure(place.data_dir, ADMIN_SECRET),
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_CALLHOME_ENABLE": "off",
        "MINIO_PROMETHEUS_AUTH_TYPE": "jwt",
        "GOMEMLIMIT": "256MiB",
        "GOGC": "50",
    }


async def probe(port: int) -> int:
    """Asks whether it can serve; then the system who listens there."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(READY)
        status = await reader.readline()
    finally:
        writer.close()
    if b" 200 " not in status:
        raise EOFError(status.decode(errors="replace"))
    return listener(port)


def target(url: str) -> dict[str, Any]:
    """Log in as the administrator."""
    return {
        "endpoint": url,
        "access_key": secrets.reference(ADMIN_NAME),
        "secret_key": secrets.reference(ADMIN_SECRET),
    }


def given_target(url: str) -> dict[str, Any]:
    """Log in by `COREPLANE_MINIO_ACCESS_KEY` and `COREPLANE_MINIO_SECRET_KEY`."""
    names = {field: f"COREPLANE_MINIO_{field.upper()}" for field in ("access_key", "secret_key")}
    region = os.environ.get("COREPLANE_MINIO_REGION")
    value: dict[str, Any] = {"endpoint": url, **{field: {"from_env": name} for field, name in names.items()}}
    return value | ({"region": region} if region else {})


MINIO: Final = Backend(
    recipe=Recipe("minio", "minio", ()),
    scheme="http",
    preferred_port=9000,
    prepare=prepare,
    command=command,
    environment=environment,
    probe=probe,
    target=target,
    given_target=given_target,
    target_name="main",
    ready_s=120.0,
    stop_s=20.0,
    later=True,
)

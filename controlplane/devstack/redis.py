"""Redis, as a cache: nothing is written to disk but its configuration and users.

The server has a configuration file, so that `CONFIG REWRITE` works, and an ACL file, so that `ACL SAVE` does; both are
written once and then belong to the server. The daemon logs in as `coreplane` with a generated password. The user
`default` stays open, as Redis delivers it, so that `redis-cli` works at once: the server listens on loopback only.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
from pathlib import Path
from typing import Any, Final

from controlplane.devstack import secrets
from controlplane.devstack.backend import Backend, Place, Recipe
from controlplane.devstack.ports import LOOPBACK

ADMIN: Final = "coreplane"
ADMIN_SECRET: Final = "redis-admin"  # noqa: S105 - the name of a file
CONFIGURATION: Final = """\
# Written once by Coreplane's devstack; CONFIG REWRITE changes it afterwards.
save ""
appendonly no
latency-tracking yes
"""
_PID = re.compile(rb"^process_id:(\d+)\r?$", re.MULTILINE)


def _users_path(place: Place) -> Path:
    return place.home / "users.acl"


def prepare(place: Place) -> None:
    """Configuration, users and the daemon's password."""
    place.home.mkdir(parents=True, exist_ok=True)
    configuration = place.home / "redis.conf"
    if not configuration.exists():
        configuration.write_text(CONFIGURATION, encoding="utf-8")
    users = _users_path(place)
    digest = hashlib.sha256(secrets.ensure(place.data_dir, ADMIN_SECRET).encode()).hexdigest()
    if not users.exists() or digest not in users.read_text(encoding="utf-8"):
        users.write_text(
            f"user default on nopass ~* &* +@all\nuser {ADMIN} on #{digest} ~* &* +@all\n", encoding="utf-8"
        )


def command(place: Place, program: Path) -> list[str]:
    """The arguments beside the file win over it: the port may have changed since it was rewritten."""
    return [
        *(str(program), str(place.home / "redis.conf")),
        *("--bind", LOOPBACK, "--port", str(place.port), "--dir", str(place.home)),
        *("--aclfile", str(_users_path(place)), "--daemonize", "no", "--logfile", ""),
    ]


async def probe(port: int) -> int:
    """Asks the server for its pid; EOFError when it speaks but isn't ready or isn't Redis."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(b"INFO server\r\n")
        header = await reader.readline()
        if not header.startswith(b"$"):
            raise EOFError(header.decode(errors="replace"))
        found = _PID.search(await reader.readexactly(int(header[1:])))
        if found is None:
            msg = "INFO without a process_id"
            raise EOFError(msg)
        return int(found[1])
    finally:
        writer.close()


def target(url: str) -> dict[str, Any]:
    """Log in as the daemon's own user."""
    return {"kind": "redis", "url": url, "username": ADMIN, "password": secrets.reference(ADMIN_SECRET)}


def given_target(url: str) -> dict[str, Any]:
    """Log in as `COREPLANE_REDIS_USERNAME` (or `default`) if `COREPLANE_REDIS_PASSWORD` is set, else not at all."""
    if "COREPLANE_REDIS_PASSWORD" not in os.environ:
        return {"kind": "redis", "url": url}
    username = os.environ.get("COREPLANE_REDIS_USERNAME", "default")
    return {"kind": "redis", "url": url, "username": username, "password": {"from_env": "COREPLANE_REDIS_PASSWORD"}}


REDIS: Final = Backend(
    recipe=Recipe("redis", "redis-server", ("redis-server", "redis-tools")),
    scheme="redis",
    preferred_port=6379,
    prepare=prepare,
    command=command,
    probe=probe,
    target=target,
    given_target=given_target,
)

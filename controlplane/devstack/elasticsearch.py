"""Elasticsearch: one node on loopback, with security on and one administrator.

The administrator `coreplane` has a generated password and stands in the file realm, so that nothing has to be asked of a
server that nobody may ask yet. Users and roles that are declared later are the server's own. TLS is off: loopback.

Note [Another user with the rights of this one]. Elasticsearch refuses to run as root. As root we start it as `nobody`, and
leave it the capability to reach files, because data directories are often closed to others (mode 700, below /root). The
Java library asks access(2) first, which for a user other than root looks at no capabilities unless the bit
`no_setuid_fixup` is set.

The launcher is a small JVM that starts the server as its child: both are in one session, by which the probe knows ours.
Memory is bounded to 512 MB of heap; without the optimising compiler it starts with half the work.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
from pathlib import Path
from typing import Any, Final

from controlplane.devstack import secrets
from controlplane.devstack.backend import Backend, Place, Recipe
from controlplane.devstack.ports import LOOPBACK, free_or_any, listener

ADMIN: Final = "coreplane"
ADMIN_SECRET: Final = "elasticsearch-admin"  # noqa: S105 - the name of a file
ITERATIONS: Final = 10_000
JVM_OPTIONS: Final = """\
# Written by Coreplane's devstack before every start.
-Xms512m
-Xmx512m
-XX:+UseSerialGC
-XX:TieredStopAtLevel=1
-XX:+ExitOnOutOfMemoryError
-Djava.io.tmpdir=${ES_TMPDIR}
20-:--add-modules=jdk.incubator.vector
-Dorg.apache.lucene.store.defaultReadAdvice=normal
-Dorg.apache.lucene.store.MMapDirectory.sharedArenaMaxPermits=1
"""
LOGGING: Final = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""
UNPRIVILEGED: Final = (
    *("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--securebits=+no_setuid_fixup"),
    *(f"--{kind}-caps=-all,+dac_override,+dac_read_search" for kind in ("inh", "ambient")),
)
"""See [Another user with the rights of this one]."""
PROBE: Final = b"GET /_cluster/health?wait_for_status=yellow&timeout=1s HTTP/1.0\r\n\r\n"
_TRANSPORT = re.compile(r"^transport\.port: (\d+)$", re.MULTILINE)


def prepare(place: Place) -> None:
    """Configuration and the administrator; what is kept in `data` stays."""
    configuration = place.home / "config"
    for folder in (configuration, *(place.home / name for name in ("data", "tmp", "snapshots", "logs"))):
        folder.mkdir(parents=True, exist_ok=True)
    settings = configuration / "elasticsearch.yml"
    known = _TRANSPORT.search(settings.read_text(encoding="utf-8")) if settings.exists() else None
    settings.write_text(_settings(place, free_or_any(int(known[1]) if known else 0)), encoding="utf-8")
    (configuration / "jvm.options").write_text(JVM_OPTIONS, encoding="utf-8")
    (configuration / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
    (configuration / "users").write_text(f"{ADMIN}:{_hashed(credentials(place)[1])}\n", encoding="utf-8")
    (configuration / "users_roles").write_text(f"superuser:{ADMIN}\n", encoding="utf-8")


def command(place: Place, program: Path) -> list[str]:
    """As another user when we are root."""
    paths = {"ES_PATH_CONF": place.home / "config", "ES_TMPDIR": place.home / "tmp"}
    environment = ["env", "-u", "JAVA_HOME", *(f"{name}={path}" for name, path in paths.items())]
    return [*(UNPRIVILEGED if os.geteuid() == 0 else ()), *environment, str(program)]


async def probe(port: int) -> int:
    """Asks for the cluster's health; who may not know it yet is answered 401 by a server that is up all the same."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        writer.write(PROBE)
        status = await reader.readline()
    finally:
        writer.close()
    if status.split()[1:2] not in ([b"200"], [b"401"]):
        raise EOFError(status.decode(errors="replace"))
    return os.getsid(listener(port))


def credentials(place: Place) -> tuple[str, str]:
    """Name and password of the administrator."""
    return ADMIN, secrets.ensure(place.data_dir, ADMIN_SECRET)


def login(url: str, *, given: bool) -> dict[str, Any]:
    """URL, name and reference of the password: of ours, or of one that a person names: `COREPLANE_ELASTICSEARCH_USERNAME`
    (or `elastic`) if `COREPLANE_ELASTICSEARCH_PASSWORD` is set."""
    if not given:
        return {"url": url, "username": ADMIN, "password": secrets.reference(ADMIN_SECRET)}
    if "COREPLANE_ELASTICSEARCH_PASSWORD" not in os.environ:
        return {"url": url}
    username = os.environ.get("COREPLANE_ELASTICSEARCH_USERNAME", "elastic")
    return {"url": url, "username": username, "password": {"from_env": "COREPLANE_ELASTICSEARCH_PASSWORD"}}


def target(url: str) -> dict[str, Any]:
    """Log in as the administrator."""
    return login(url, given=False)


def given_target(url: str) -> dict[str, Any]:
    """See `login`."""
    return login(url, given=True)


def _hashed(password: str) -> str:
    """In the form of Elasticsearch's own tools (PBKDF2 with HMAC-SHA512, 256 bits)."""
    salt = os.urandom(32)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, ITERATIONS, 32)
    encoded = (base64.b64encode(part).decode() for part in (salt, digest))
    return f"{{PBKDF2}}{ITERATIONS}${'$'.join(encoded)}"


def _settings(place: Place, transport: int) -> str:
    return f"""\
# Written by Coreplane's devstack before every start.
cluster.name: coreplane
node.name: main
discovery.type: single-node
network.host: {LOOPBACK}
http.port: {place.port}
transport.port: {transport}
path.data: {place.home / "data"}
path.logs: {place.home / "logs"}
path.repo: ["{place.home / "snapshots"}"]
# A machine of a developer may be nearly full, and writes go on.
cluster.routing.allocation.disk.threshold_enabled: false
xpack.security.enabled: true
xpack.security.http.ssl.enabled: false
xpack.security.transport.ssl.enabled: false
xpack.security.autoconfiguration.enabled: false
xpack.security.enrollment.enabled: false
"""


ELASTICSEARCH: Final = Backend(
    recipe=Recipe("elasticsearch", "elasticsearch", ()),
    scheme="http",
    preferred_port=9200,
    prepare=prepare,
    command=command,
    probe=probe,
    target=target,
    given_target=given_target,
    ready_s=300.0,
    target_name="main",
    later=True,
    stop_s=30.0,
)

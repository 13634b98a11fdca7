"""Names of Redis parameters (7.0 and 7.2): aliases, and those that aren't managed by declarations."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

ALIASES: Final = MappingProxyType(
    {
        "hash-max-ziplist-entries": "hash-max-listpack-entries",
        "hash-max-ziplist-value": "hash-max-listpack-value",
        "zset-max-ziplist-entries": "zset-max-listpack-entries",
        "zset-max-ziplist-value": "zset-max-listpack-value",
        "list-max-ziplist-size": "list-max-listpack-size",
        "lua-time-limit": "busy-reply-threshold",
        "slave-serve-stale-data": "replica-serve-stale-data",
        "slave-read-only": "replica-read-only",
        "slave-ignore-maxmemory": "replica-ignore-maxmemory",
        "slave-lazy-flush": "replica-lazy-flush",
        "slave-announced": "replica-announced",
        "slave-announce-ip": "replica-announce-ip",
        "slave-announce-port": "replica-announce-port",
        "slave-priority": "replica-priority",
        "repl-ping-slave-period": "repl-ping-replica-period",
        "min-slaves-to-write": "min-replicas-to-write",
        "min-slaves-max-lag": "min-replicas-max-lag",
        "cluster-slave-validity-factor": "cluster-replica-validity-factor",
        "cluster-slave-no-failover": "cluster-replica-no-failover",
        "slaveof": "replicaof",
    }
)
"""Alias → real name. The server accepts both of a pair in one `CONFIG SET` and lets either win (7.0.15)."""

_CUT_OFF = "it is the daemon's way to the server; change it where the server is started, then the target's url"
_SECRET = "its value is a secret; use a cache.redis_user with passwords, or set it where the server is started"  # noqa: S105
_FILES = "it says where the server writes; change it where the server is started"
_TOPOLOGY = "it is the deployment's affair, and failover changes it"

REFUSED_PARAMETERS: Final = MappingProxyType(
    dict.fromkeys(("port", "bind", "bind-source-addr", "tls-port", "unixsocket", "unixsocketperm"), _CUT_OFF)
    | dict.fromkeys(("protected-mode", "enable-protected-configs", "rename-command"), _CUT_OFF)
    | dict.fromkeys(
        ("tls-cert-file", "tls-key-file", "tls-auth-clients", "tls-ca-cert-file", "tls-ca-cert-dir"), _CUT_OFF
    )
    | dict.fromkeys(("requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass"), _SECRET)
    | dict.fromkeys(("dir", "dbfilename", "appendfilename", "appenddirname", "logfile", "pidfile"), _FILES)
    | dict.fromkeys(
        ("aclfile", "include", "loadmodule", "user"),
        "declare users as cache.redis_user, and files and modules where the server is started",
    )
    | dict.fromkeys(("replicaof", "masteruser", "cluster-enabled", "cluster-config-file"), _TOPOLOGY)
)
"""Real name → what to do instead."""


def real_name(name: str) -> str:
    """The parameter's name of today."""
    return ALIASES.get(name, name)

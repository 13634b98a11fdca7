"""What exists in a cache server, as declarations. Pure.

A Redis has some 190 parameters and doesn't say which of them somebody has set. Owning them all would make every default of
today a demand on the server of tomorrow, so those are declared that differ from what Redis 7.0 starts with; a narrower match
than `*` takes every parameter that it matches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from reconcilers.cache import memcached_settings, parameters
from reconcilers.cache.model import CONFIG
from reconcilers.contract import Discovered
from reconcilers.discovery import matches, setting_name
from reconcilers.planning import Nodes

EVERYTHING: Final = "*"

DEFAULTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "acl-pubsub-default": "resetchannels",
        "acllog-max-len": "128",
        "active-defrag-cycle-max": "25",
        "active-defrag-cycle-min": "1",
        "active-defrag-ignore-bytes": "104857600",
        "active-defrag-max-scan-fields": "1000",
        "active-defrag-threshold-lower": "10",
        "active-defrag-threshold-upper": "100",
        "active-expire-effort": "1",
        "activedefrag": "no",
        "activerehashing": "yes",
        "aof-disable-auto-gc": "no",
        "aof-load-truncated": "yes",
        "aof-rewrite-incremental-fsync": "yes",
        "aof-timestamp-enabled": "no",
        "aof-use-rdb-preamble": "yes",
        "appendfsync": "everysec",
        "appendonly": "no",
        "auto-aof-rewrite-min-size": "67108864",
        "auto-aof-rewrite-percentage": "100",
        "busy-reply-threshold": "5000",
        "client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
        "client-query-buffer-limit": "1073741824",
        "cluster-allow-pubsubshard-when-down": "yes",
        "cluster-allow-reads-when-down": "no",
        "cluster-allow-replica-migration": "yes",
        "cluster-link-sendbuf-limit": "0",
        "cluster-migration-barrier": "1",
        "cluster-node-timeout": "15000",
        "cluster-preferred-endpoint-type": "ip",
        "cluster-replica-no-failover": "no",
        "cluster-replica-validity-factor": "10",
        "cluster-require-full-coverage": "yes",
        "crash-log-enabled": "yes",
        "crash-memcheck-enabled": "yes",
        "dynamic-hz": "yes",
        "hash-max-listpack-entries": "512",
        "hash-max-listpack-value": "64",
        "hll-sparse-max-bytes": "3000",
        "hz": "10",
        "ignore-warnings": "",
        "jemalloc-bg-thread": "yes",
        "latency-monitor-threshold": "0",
        "latency-tracking": "yes",
        "latency-tracking-info-percentiles": "50 99 99.9",
        "lazyfree-lazy-eviction": "no",
        "lazyfree-lazy-expire": "no",
        "lazyfree-lazy-server-del": "no",
        "lazyfree-lazy-user-del": "no",
        "lazyfree-lazy-user-flush": "no",
        "lfu-decay-time": "1",
        "lfu-log-factor": "10",
        "list-compress-depth": "0",
        "list-max-listpack-size": "-2",
        "loglevel": "notice",
        "maxmemory": "0",
        "maxmemory-clients": "0",
        "maxmemory-eviction-tenacity": "10",
        "maxmemory-policy": "noeviction",
        "maxmemory-samples": "5",
        "min-replicas-max-lag": "10",
        "min-replicas-to-write": "0",
        "no-appendfsync-on-rewrite": "no",
        "notify-keyspace-events": "",
        "oom-score-adj": "no",
        "oom-score-adj-values": "0 200 800",
        "proc-title-template": "{title} {listen-addr} {server-mode}",
        "propagation-error-behavior": "ignore",
        "proto-max-bulk-len": "536870912",
        "rdb-del-sync-files": "no",
        "rdb-save-incremental-fsync": "yes",
        "rdbcompression": "yes",
        "repl-backlog-size": "1048576",
        "repl-backlog-ttl": "3600",
        "repl-disable-tcp-nodelay": "no",
        "repl-diskless-load": "disabled",
        "repl-diskless-sync": "yes",
        "repl-diskless-sync-delay": "5",
        "repl-diskless-sync-max-replicas": "0",
        "repl-ping-replica-period": "10",
        "repl-timeout": "60",
        "replica-announce-ip": "",
        "replica-announce-port": "0",
        "replica-announced": "yes",
        "replica-ignore-disk-write-errors": "no",
        "replica-ignore-maxmemory": "yes",
        "replica-lazy-flush": "no",
        "replica-priority": "100",
        "replica-read-only": "yes",
        "replica-serve-stale-data": "yes",
        "sanitize-dump-payload": "no",
        "save": "3600 1 300 100 60 10000",
        "set-max-intset-entries": "512",
        "shutdown-on-sigint": "default",
        "shutdown-on-sigterm": "default",
        "shutdown-timeout": "10",
        "slowlog-log-slower-than": "10000",
        "slowlog-max-len": "128",
        "stop-writes-on-bgsave-error": "yes",
        "stream-node-max-bytes": "4096",
        "stream-node-max-entries": "100",
        "tcp-keepalive": "300",
        "timeout": "0",
        "tls-ciphers": "",
        "tls-ciphersuites": "",
        "tls-client-cert-file": "",
        "tls-client-key-file": "",
        "tls-cluster": "no",
        "tls-dh-params-file": "",
        "tls-prefer-server-ciphers": "no",
        "tls-protocols": "",
        "tls-replication": "no",
        "tls-session-cache-size": "20480",
        "tls-session-cache-timeout": "300",
        "tls-session-caching": "yes",
        "tracking-table-max-keys": "1000000",
        "zset-max-listpack-entries": "128",
        "zset-max-listpack-value": "64",
    }
)
"""What Redis 7.0.15 holds when it is started with nothing, of the parameters that can be changed while it runs. Left out is
what follows from the machine (`maxclients`) and where it stands in a cluster."""

SANITIZED: Final = "skip-sanitize-payload"


# --- users of redis ----------------------------------------------------------------------------------------------------


def redis_user(name: str, nodes: Nodes[Mapping[str, Any] | None]) -> Discovered:
    """A user from what `ACL GETUSER` says on each node: flags, passwords, rules; None where it isn't there."""
    replies = [reply for reply in nodes.held.values() if reply is not None]
    found = _redis_user(name, replies[0])
    if any(reply is None for reply in nodes.held.values()):
        return replace(found, undeclarable="only some nodes have it: declared, it would be made on the others")
    if any(_comparable(reply) != _comparable(replies[0]) for reply in replies):
        return replace(found, undeclarable="the nodes differ: declare what all are to be")
    if SANITIZED in replies[0]["flags"]:
        return replace(found, undeclarable=f"it has {SANITIZED}, which can't be declared")
    return _unless_silent(found, nodes)


def _redis_user(name: str, reply: Mapping[str, Any]) -> Discovered:
    setting, flags = setting_name(name), reply["flags"]
    value: dict[str, Any] = {} if setting == name else {"username": name}
    if "on" not in flags:
        value["enabled"] = False
    if "nopass" in flags:
        value["nopass"] = True
    value |= {part: rules for part, rules in _rules(reply).items() if rules}
    return Discovered(setting, value, _passwords(0 if "nopass" in flags else len(reply["passwords"])))


def _rules(reply: Mapping[str, Any]) -> dict[str, list[str]]:
    """Every user begins with no command at all, so the leading `-@all` is left out."""
    commands = reply["commands"].split()
    return {
        "commands": commands[1:] if commands[:1] == ["-@all"] else commands,
        "keys": [pattern.removeprefix("~") for pattern in reply["keys"].split()],
        "channels": [pattern.removeprefix("&") for pattern in reply["channels"].split()],
        "selectors": [f"({' '.join(_selector(selector))})" for selector in reply["selectors"]],
    }


def _selector(selector: Mapping[str, Any]) -> list[str]:
    return [word for part in ("keys", "channels", "commands") for word in selector[part].split()]


def _comparable(reply: Mapping[str, Any]) -> Any:
    rules = [reply[part] for part in ("commands", "keys", "channels", "selectors")]
    return [sorted(reply["flags"]), sorted(reply["passwords"]), rules]


def _passwords(count: int) -> Mapping[str, str]:
    if count == 0:
        return {}
    has = "it has a password" if count == 1 else f"it has {count} passwords"
    return {"/passwords": f"{has}, which can't be read and stays as it is; [{{from_file: PATH}}] would own it"}


def _unless_silent(found: Discovered, nodes: Nodes[Any]) -> Discovered:
    if not nodes.silent:
        return found
    return replace(found, undeclarable=f"no answer from {', '.join(sorted(nodes.silent))}")


# --- parameters of servers ---------------------------------------------------------------------------------------------


def redis_config(nodes: Nodes[Mapping[str, str]], match: str) -> Sequence[Discovered]:
    """Parameters from what `CONFIG GET *` says on each node; nothing when none is meant."""
    held = {node: _meant(values, match) for node, values in nodes.held.items()}
    return [_alike(held, {"parameters": next(iter(held.values()))}, nodes)] if any(held.values()) else []


def _meant(values: Mapping[str, str], match: str) -> dict[str, str]:
    known = {name: values[name] for name in DEFAULTS if name in values}
    if match in (EVERYTHING, CONFIG):
        return {name: text for name, text in known.items() if not _is_default(name, text)}
    return {name: text for name, text in known.items() if matches(name, match)}


def _is_default(name: str, text: str) -> bool:
    return parameters.canonical(name, text) == parameters.canonical(name, DEFAULTS[name])


def memcached_config(nodes: Nodes[Mapping[str, str]], match: str) -> Sequence[Discovered]:
    """All settings that can be declared, from `stats settings` of each node: there are eleven of them."""
    if not matches(CONFIG, match):
        return []
    held = {node: memcached_settings.held(stats) for node, stats in nodes.held.items()}
    return [_alike(held, memcached_settings.value_of(next(iter(held.values()))), nodes)]


def _alike(held: Mapping[str, Mapping[str, str]], value: Mapping[str, Any], nodes: Nodes[Any]) -> Discovered:
    """One declaration for all nodes, if they hold the same."""
    found, first = Discovered(CONFIG, value), next(iter(held.values()))
    names = {
        name for values in held.values() for name in values.keys() | first.keys() if values.get(name) != first.get(name)
    }
    if names:
        return replace(found, undeclarable=f"the nodes differ in {', '.join(sorted(names))}")
    return _unless_silent(found, nodes)

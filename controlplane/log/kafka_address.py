"""Where a Kafka log is: `kafka://[user@]host:port[,host:port…][?prefix=NAME&tls=true&ca_file=PATH&mechanism=SCRAM-SHA-512]`.
Pure.

A password doesn't stand in the URL, because URLs are shown: it comes from `COREPLANE_LOG_PASSWORD`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from controlplane.log.ports import LogUnavailable

SCHEME: Final = "kafka"
PASSWORD_VARIABLE: Final = "COREPLANE_LOG_PASSWORD"  # noqa: S105 - the name of a variable
PREFIX: Final = "coreplane"
OPTIONS: Final = ("prefix", "tls", "ca_file", "mechanism")
MECHANISMS: Final = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
PERMISSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "topic": ("create", "delete", "describe_configs", "read", "write"),
    "group": ("read",),
    "transactional_id": ("write",),
}
"""What a login needs on all whose names begin with the prefix; deleting is for records that are older than their retention."""
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,100}")
_SERVER = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):\d{1,5}")


@dataclass(frozen=True, slots=True)
class Address:
    """Brokers, the prefix of our topics and transactional ids, and how to log in (no user: not at all)."""

    servers: tuple[str, ...]
    prefix: str = PREFIX
    tls: bool = False
    ca_file: str = ""
    """Of the authority that the brokers' certificates are from, PEM; empty: those that the system trusts."""
    user: str = ""
    mechanism: str = MECHANISMS[0]
    password: str = field(default="", repr=False)

    def topic(self, name: str) -> str:
        """The topic of a stream."""
        return f"{self.prefix}.{name}"

    def transactional_id(self, shard: int) -> str:
        """Fixed for ever: whoever starts a producer with it fences the one before."""
        return f"{self.prefix}-shard-{shard}"

    @property
    def needed(self) -> str:
        """The permissions, for people."""
        each = "; ".join(f"{resource}: {', '.join(operations)}" for resource, operations in PERMISSIONS.items())
        return f"on all that begins with {self.prefix} its login needs {each}"

    def __str__(self) -> str:
        """The URL, for people."""
        user = f"{self.user}@" if self.user else ""
        return f"{SCHEME}://{user}{','.join(self.servers)}?prefix={self.prefix}"


def parse(url: str, environment: Mapping[str, str]) -> Address:
    """The address a URL names. Raises `LogUnavailable` with what is wrong with it."""
    parts = urlsplit(url)
    user, _, hosts = parts.netloc.rpartition("@")
    servers = tuple(part for part in hosts.split(",") if part)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(OPTIONS))
    address = Address(
        servers,
        options.get("prefix", PREFIX),
        options.get("tls", "false") == "true",
        options.get("ca_file", ""),
        user,
        options.get("mechanism", MECHANISMS[0]),
        environment.get(PASSWORD_VARIABLE, ""),
    )
    wrong = [
        (parts.scheme != SCHEME, f"begins with {SCHEME}://"),
        (not servers, "names at least one host:port"),
        (not all(_SERVER.fullmatch(server) for server in servers), "names every broker as host:port"),
        (bool(parts.path.strip("/")), "has no path"),
        (":" in user, f"holds no password; set {PASSWORD_VARIABLE}"),
        (bool(user) and not address.password, f"names a user, so {PASSWORD_VARIABLE} must be set"),
        (bool(unknown), f"has the options {', '.join(OPTIONS)}, not {', '.join(unknown)}"),
        (options.get("tls", "false") not in ("true", "false"), "says tls=true or tls=false"),
        (bool(address.ca_file) and not address.tls, "says tls=true beside its ca_file"),
        (address.mechanism not in MECHANISMS, f"has a mechanism of {', '.join(MECHANISMS)}"),
        (_PREFIX.fullmatch(address.prefix) is None, "has a prefix of letters, digits, dots, dashes and underscores"),
    ]
    told = [rule for broken, rule in wrong if broken]
    if told:
        shown = f"{parts.scheme}://{hosts}"
        msg = f"log.url {shown!r}: a Kafka log's URL {'; it '.join(told)}"
        raise LogUnavailable(msg)
    return address

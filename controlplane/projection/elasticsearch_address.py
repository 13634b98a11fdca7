"""Where an Elasticsearch projection is: `http[s]://host:port[/path][?prefix=NAME&ca_file=PATH]`. Pure.

A password doesn't stand in the URL, because URLs are shown: `projection.username` and `projection.password` say it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

SCHEMES: Final = ("http", "https")
PREFIX: Final = "coreplane"
_PREFIX = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Address:
    """A cluster, and what the names of our indices begin with."""

    url: str
    prefix: str = PREFIX
    ca_file: str = ""
    """Of the authority that the certificate is from, PEM; empty: those that the system trusts."""


def is_elasticsearch(url: str) -> bool:
    """Whether a projection's URL means Elasticsearch."""
    return url.partition(":")[0] in SCHEMES


def parse(url: str) -> Address:
    """The address a URL names. Raises ValueError with what is wrong with it."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix, ca_file = options.get("prefix", PREFIX), options.get("ca_file", "")
    port = _port(url)
    wrong = [
        (not parts.hostname, "names a host"),
        (port is None, "has a port between 1 and 65535"),
        ("@" in parts.netloc, "holds no user; set projection.username and projection.password"),
        (bool(options.keys() - {"prefix", "ca_file"}), "has no options but prefix and ca_file"),
        (bool(ca_file) and parts.scheme != "https", "begins with https:// when it has a ca_file"),
        (_PREFIX.fullmatch(prefix) is None, "has a prefix of small letters, digits, dots, dashes and underscores"),
    ]
    told = [rule for broken, rule in wrong if broken]
    if told:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        msg = f"projection.url {shown!r}: the URL of an Elasticsearch {'; it '.join(told)}"
        raise ValueError(msg)
    place = f"{parts.scheme}://{parts.netloc}{'' if parts.port else f':{port}'}{parts.path.rstrip('/')}"
    return Address(place, prefix, ca_file)


def _port(url: str) -> int | None:
    try:
        parts = urlsplit(url)
        return (parts.port or None) if parts.port is not None else {"http": 9200, "https": 443}.get(parts.scheme)
    except ValueError:
        return None

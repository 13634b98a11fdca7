"""What discoveries of several services share: which objects are meant, and what their settings are called. Pure."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Final

_LEADING: Final = re.compile(r"^[^A-Za-z0-9]+")
_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST: Final = 128


def matches(name: str, match: str, *, reserved: bool = False) -> bool:
    """Is the object meant by the glob? `reserved`: it is the server's or the daemon's own, meant by its very name only."""
    return name == match if reserved else fnmatchcase(name, match)


def setting_name(name: str) -> str:
    """The object's name as a setting may be called: what a setting's name can't have becomes a hyphen."""
    return _ILLEGAL.sub("-", _LEADING.sub("", name))[:_LONGEST] or "unnamed"

"""Redis ACL files (`aclfile`, `ACL SAVE`, the `user` lines of redis.conf) as declarations of users. Pure.

Redis reads a line as `ACL SETUSER` does, rule by rule, so it is read here in the same way: later rules win, `reset` begins
anew, and what has an alias (`allkeys`, `nocommands`) means the same. Passwords and their digests are never repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from reconcilers.cache.model import REDIS_USER
from reconcilers.contract import Discovered, FileFormat
from reconcilers.discovery import setting_name

_LINE: Final = re.compile(r"^\s*user\s+\S+", re.MULTILINE)
_WORD: Final = re.compile(r"\([^)]*\)|\S+")


@dataclass
class _User:
    """One user while its rules are read."""

    enabled: bool = False
    nopass: bool = False
    passwords: set[str] = field(default_factory=set)
    commands: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    channels: list[str] = field(default_factory=list)
    selectors: list[str] = field(default_factory=list)
    unspeakable: str | None = None

    def reset(self) -> None:
        """As `reset` does."""
        vars(self).update(vars(_User()))


def _switch(name: str, value: Any) -> Callable[[_User], None]:
    return lambda user: setattr(user, name, value)


def _everything(name: str, rule: str) -> Callable[[_User], None]:
    return lambda user: setattr(user, name, [rule])


def _nopass(user: _User) -> None:
    user.nopass = True
    user.passwords.clear()


def _resetpass(user: _User) -> None:
    user.nopass = False
    user.passwords.clear()


_WORDS: Final[dict[str, Callable[[_User], None]]] = {
    "on": _switch("enabled", True),  # noqa: FBT003 - the value of a field
    "off": _switch("enabled", False),  # noqa: FBT003
    "nopass": _nopass,
    "resetpass": _resetpass,
    "reset": _User.reset,
    "allkeys": _everything("keys", "*"),
    "resetkeys": lambda user: user.keys.clear(),
    "allchannels": _everything("channels", "*"),
    "resetchannels": lambda user: user.channels.clear(),
    "allcommands": _everything("commands", "+@all"),
    "+@all": _everything("commands", "+@all"),
    "nocommands": lambda user: user.commands.clear(),
    "-@all": lambda user: user.commands.clear(),
    "clearselectors": lambda user: user.selectors.clear(),
    "sanitize-payload": _switch("unspeakable", None),
    "skip-sanitize-payload": _switch("unspeakable", "it has skip-sanitize-payload, which can't be declared"),
}
"""Rules that are whole words, in lower case."""


def read(text: str, _name: str) -> Sequence[tuple[str, Discovered]]:
    """Every user of the file. Raises ValueError with the line; a line that isn't a user's is passed over in redis.conf."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not _LINE.match(line):
            continue
        _, name, *rules = _WORD.findall(line.strip())
        user = _User()
        for rule in rules:
            if not _take(user, rule):
                msg = f"line {number}, user {name}: the rule {_masked(rule)} isn't known"
                raise ValueError(msg)
        found.append((REDIS_USER, _discovered(name, user)))
    return found


def _take(user: _User, rule: str) -> bool:
    word = _WORDS.get(rule.lower())
    if word is not None:
        word(user)
    elif rule[0] in "+-":
        user.commands.append(rule)
    elif rule[0] in "~%":
        user.keys.append(rule.removeprefix("~"))
    elif rule[0] == "&":
        user.channels.append(rule[1:])
    elif rule[0] == "(":
        user.selectors.append(rule)
    elif rule[0] in ">#":
        user.nopass = False
        user.passwords.add(rule[1:])
    elif rule[0] in "<!":
        user.passwords.discard(rule[1:])
    else:
        return False
    return True


def _masked(rule: str) -> str:
    """A word that was meant to be a password may be one."""
    return f"{rule[:1]}…"


def _discovered(name: str, user: _User) -> Discovered:
    setting = setting_name(name)
    value: dict[str, Any] = {} if setting == name else {"username": name}
    value |= {} if user.enabled else {"enabled": False}
    value |= {"nopass": True} if user.nopass else {}
    lists = {"commands": user.commands, "keys": user.keys, "channels": user.channels, "selectors": user.selectors}
    value |= {part: rules for part, rules in lists.items() if rules}
    if not user.passwords:
        return Discovered(setting, value, {}, user.unspeakable)
    count = len(user.passwords)
    what = "the password" if count == 1 else f"the {count} passwords"
    hint = f"name where {what} of the file can be found, as in [{{from_file: PATH}}]; else what the server has stays"
    return Discovered(setting, value, {"/passwords": hint}, user.unspeakable)


REDIS_ACL: Final = FileFormat("redis_acl", lambda text: _LINE.search(text) is not None, read)

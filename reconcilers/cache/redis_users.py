"""ACL users on one Redis node: what is there, what the server makes of declared rules, and how it is changed. I/O.

Declared rules are put on a scratch user and described, and the user is deleted in the same write. It is off, has no password
and a name of its own for each write; should the connection break in between, the next sweep of leftovers deletes it. Not in
MULTI: a server over its `maxmemory` would refuse that, and then nothing could be observed. Answers are kept per server
process, so that an idle sweep writes nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import uuid
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from redis.exceptions import ResponseError

from reconcilers.cache import acl
from reconcilers.cache.acl import Account, User
from reconcilers.cache.model import DEFAULT_USER
from reconcilers.cache.redis_nodes import Command, Interrupted, RedisNode, info, pairs, refused, valued
from reconcilers.cache.steps import DropUser, SetUser
from reconcilers.contract import (
    SUCCEEDED,
    BackendError,
    Fence,
    Outcome,
    Result,
    SecretNotFound,
    Secrets,
    TerminalError,
    failed,
    unknown,
)
from reconcilers.discovery import matches
from schemas.cache import SCRATCH_USER_PREFIX
from schemas.secret import SecretRef

FEW: Final = 16
"""Up to so many users are asked for by name; for more the whole list is read, which the server keeps ready."""

TOGETHER: Final = 200
"""Rules asked about in one write, and lines read in one go: some milliseconds, for the server and for us."""

_CLIENT_USER: Final = re.compile(r" user=(\S+)")
"""In a line of CLIENT LIST."""

NEEDED: Final[Sequence[Command]] = (
    ("ACL", "SETUSER", "x"),
    ("ACL", "GETUSER", "x"),
    ("ACL", "LIST"),
    ("ACL", "DELUSER", "x"),
    ("CONFIG", "GET", "x"),
    ("CONFIG", "SET", "x", "y"),
    ("INFO",),
    ("CLIENT", "KILL", "USER", "x"),
)
"""What the daemon's own user must be able to run to mend anything."""


@dataclass(frozen=True, slots=True)
class Login:
    """How the daemon itself logs in."""

    username: str
    password: SecretRef | None
    secrets: Secrets


@dataclass(frozen=True, slots=True)
class FoundUser:
    """One user on one node."""

    held: Account | None
    wanted: Account | BackendError | None
    """None when the user is retired."""
    lockout: str | None = None


async def observe_users(node: RedisNode, wanted: Mapping[str, User | None], login: Login) -> dict[str, FoundUser]:
    """Every user asked for, by name. Raises what `RedisNode.read` raises."""
    held = await _held(node, wanted, login.secrets)
    users = [user for user in wanted.values() if user is not None]
    forms = await _canonical(node, dict.fromkeys(user.rules for user in users), login.secrets)
    found: dict[str, FoundUser] = {}
    for name, user in wanted.items():
        if len(found) % TOGETHER == TOGETHER - 1:
            await asyncio.sleep(0)
        there = held.get(name)
        form = None if user is None else _as_wanted(user, forms[user.rules], there, login.secrets)
        lockout = await _lockout(node, user, login) if name == login.username else None
        found[name] = FoundUser(there, form, lockout)
    return found


async def _held(node: RedisNode, names: Iterable[str], secrets: Secrets) -> dict[str, Account]:
    names = set(names)
    if len(names) > FEW:
        server, listed = await node.read(("INFO", "server"), ("ACL", "LIST"))
        node.identify(info(valued(server, "INFO")))
        return await _listed(node, valued(listed, "ACL LIST"), names, secrets)
    asked = sorted(names)
    server, *replies = await node.read(("INFO", "server"), *(("ACL", "GETUSER", name) for name in asked))
    node.identify(info(valued(server, "INFO")))
    rows = {name: valued(reply, "ACL GETUSER") for name, reply in zip(asked, replies, strict=True)}
    return {name: _account(reply, secrets) for name, reply in rows.items() if reply is not None}


async def _listed(node: RedisNode, lines: Sequence[str], names: Container[str], secrets: Secrets) -> dict[str, Account]:
    """Reading a line takes 60 µs: those of the last list are remembered, and others wait no longer than for some."""
    read: dict[str, tuple[str, Any]] = {}
    unread = 0
    for line in lines:
        known = node.lines.get(line)
        if known is None and line.split(" ", 2)[1] in names:
            known = acl.named_account(line, secrets.fingerprint)
            unread += 1
            if unread % TOGETHER == 0:
                await asyncio.sleep(0)
        if known is not None:
            read[line] = known
    node.lines = read
    return {name: account for name, account in read.values() if name in names}


async def described_users(node: RedisNode, match: str) -> dict[str, Mapping[str, Any]]:
    """Name → what `ACL GETUSER` says, of all users that match. `default` and our own scratch users only by their names."""
    (listed,) = await node.read(("ACL", "USERS"))
    names = [name for name in valued(listed, "ACL USERS") if matches(name, match, reserved=_is_reserved(name))]
    found: dict[str, Mapping[str, Any]] = {}
    for begin in range(0, len(names), TOGETHER):
        some = names[begin : begin + TOGETHER]
        replies = await node.read(*(("ACL", "GETUSER", name) for name in some))
        rows = {name: valued(reply, "ACL GETUSER") for name, reply in zip(some, replies, strict=True)}
        found |= {name: _described_parts(reply) for name, reply in rows.items() if reply is not None}
    return found


def _is_reserved(name: str) -> bool:
    return name == DEFAULT_USER or name.startswith(SCRATCH_USER_PREFIX)


def _described_parts(reply: Sequence[Any]) -> dict[str, Any]:
    described = pairs(reply)
    described["selectors"] = [pairs(selector) for selector in described.get("selectors", ())]
    return described


def _account(reply: Sequence[Any], secrets: Secrets) -> Account:
    return acl.account_of_reply(_described_parts(reply), secrets.fingerprint)


def _as_wanted(
    user: User, form: Account | BackendError, held: Account | None, secrets: Secrets
) -> Account | BackendError:
    """The canonical rules with what needs no canonicalising. Passwords that aren't declared are those there are."""
    if isinstance(form, BackendError):
        return form
    if user.passwords is None:
        nopass, passwords = (False, frozenset[str]()) if held is None else (held.nopass, held.passwords)
        return replace(form, enabled=user.enabled, nopass=nopass, passwords=passwords)
    try:
        passwords = frozenset(secrets.fingerprint(_digest(secrets, reference)) for reference in user.passwords)
    except SecretNotFound as exc:
        return TerminalError(str(exc), reason="SecretNotFound")
    return replace(form, enabled=user.enabled, nopass=user.nopass, passwords=passwords)


def _digest(secrets: Secrets, reference: SecretRef) -> str:
    """The form in which Redis keeps and takes a password."""
    return hashlib.sha256(secrets.reveal(reference).encode()).hexdigest()


# --- what the server makes of rules ------------------------------------------------------------------------------------


async def _canonical(
    node: RedisNode, asked: Iterable[tuple[str, ...]], secrets: Secrets
) -> dict[tuple[str, ...], Account | BackendError]:
    """The form of each set of rules; those of commands are asked for once for all the users who share them."""
    forms: dict[tuple[str, ...], Account | BackendError] = {}
    parted: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[str, ...]]] = {}
    for rules in asked:
        known = node.learnt.get(rules)
        if known is None:
            parted[rules] = acl.parted(rules)
        else:
            forms[rules] = known
    if not parted:
        return forms
    parts = await _forms_of(node, list(dict.fromkeys(part for pair in parted.values() for part in pair)), secrets)
    for rules, (commands, others) in parted.items():
        forms[rules] = form = _joined(parts[commands], parts[others])
        if isinstance(form, Account):
            node.learnt.put(rules, form)
            node.learnt.put(commands, parts[commands])
    return forms


async def _forms_of(
    node: RedisNode, asked: Sequence[tuple[str, ...]], secrets: Secrets
) -> dict[tuple[str, ...], Account | BackendError]:
    forms = {rules: known for rules in asked if (known := node.learnt.get(rules)) is not None}
    unknown_yet = [rules for rules in asked if rules not in forms]
    for begin in range(0, len(unknown_yet), TOGETHER):
        some = unknown_yet[begin : begin + TOGETHER]
        scratch = _scratch_name()
        question = ("ACL", "GETUSER", scratch)
        settings = [command for rules in some for command in (_setting(scratch, rules), question)]
        replies = await node.read(*settings, ("ACL", "DELUSER", scratch))
        for rules, made, described in zip(some, replies[:-1:2], replies[1::2], strict=True):
            forms[rules] = _described(made, described, secrets)
    return forms


def _joined(commands: Account | BackendError, others: Account | BackendError) -> Account | BackendError:
    if isinstance(commands, BackendError):
        return commands
    return others if isinstance(others, BackendError) else acl.joined(commands, others)


def _scratch_name() -> str:
    """Two writes on two connections may run interleaved: each has a user of its own."""
    return f"{SCRATCH_USER_PREFIX}{uuid.uuid4().hex[:12]}"


def _setting(scratch: str, rules: Sequence[str]) -> Command:
    return ("ACL", "SETUSER", scratch, "reset", "resetchannels", *rules, "off", "resetpass")


def _described(made: Any, described: Any, secrets: Secrets) -> Account | BackendError:
    """From the replies to setting a scratch user and to asking for it."""
    if isinstance(made, ResponseError):
        return _invalid(made)
    return _account(valued(described, "canonicalising ACL rules"), secrets)


def _invalid(error: ResponseError) -> BackendError:
    translated = refused(error, "ACL SETUSER")
    if translated.reason != "Refused":
        return translated
    return TerminalError(str(error), reason="InvalidRule")


async def _lockout(node: RedisNode, user: User | None, login: Login) -> str | None:
    """What the daemon would lose if its own user were as declared; None when it could go on."""
    if user is None:
        return "it would be gone"
    if not user.enabled:
        return "it would be disabled"
    if user.passwords is not None and not user.nopass and not _lets_in(user.passwords, login):
        return "the target's password isn't among its passwords"
    denied = node.learnt.get(("denied", user.rules))
    if denied is None:
        scratch = _scratch_name()
        questions = [("ACL", "DRYRUN", scratch, *command) for command in NEEDED]
        made, *answers, _ = await node.read(_setting(scratch, user.rules), *questions, ("ACL", "DELUSER", scratch))
        if isinstance(made, ResponseError):
            return None
        denied = tuple(_words(c) for c, answer in zip(NEEDED, answers, strict=True) if answer not in ("OK", b"OK"))
        node.learnt.put(("denied", user.rules), denied)
    return f"it couldn't run {', '.join(denied)}" if denied else None


def _lets_in(passwords: Iterable[SecretRef], login: Login) -> bool:
    if login.password is None:
        return False
    own = _digest(login.secrets, login.password)
    try:
        return any(_digest(login.secrets, reference) == own for reference in passwords)
    except SecretNotFound:
        return False


def _words(command: Command) -> str:
    return " ".join(str(word) for word in command[:2] if str(word).isupper())


# --- changing ----------------------------------------------------------------------------------------------------------


async def clients_by_user(node: RedisNode) -> Counter[str]:
    """Connections of each user. Raises `BackendError`."""
    (listed,) = await node.read(("CLIENT", "LIST"))
    rows = str(valued(listed, "CLIENT LIST")).splitlines()
    return Counter(found[1] for row in rows if (found := _CLIENT_USER.search(row)))


async def apply_users(
    node: RedisNode, steps: Sequence[SetUser | DropUser], fence: Fence, login: Login, *, save: bool
) -> list[Outcome]:
    """All steps in one write; outcomes in order. Raises `Unreachable`, `NotSent` when nothing was sent."""
    batches = [_commands(step, login.secrets) for step in steps]
    commands = [command for batch in batches if not isinstance(batch, Outcome) for command in batch]
    if not commands:
        return [batch for batch in batches if isinstance(batch, Outcome)]
    if save:
        commands.append(("ACL", "SAVE"))
    replies, lost = await _sent(node, commands, fence)
    if lost is None and any(_is_oom(reply) for reply in replies):
        # Over maxmemory nothing is queued after MULTI. Taking rights away can't wait for memory: without transactions then.
        batches = [batch if isinstance(batch, Outcome) else _plain(batch) for batch in batches]
        commands = [command for batch in batches if not isinstance(batch, Outcome) for command in batch]
        replies, lost = await _sent(node, [*commands, ("ACL", "SAVE")] if save else commands, fence)
    remaining = iter(replies)
    outcomes = [batch if isinstance(batch, Outcome) else _outcome(len(batch), remaining, lost) for batch in batches]
    return outcomes if not save else _saved(outcomes, next(remaining, None))


async def _sent(node: RedisNode, commands: Sequence[Command], fence: Fence) -> tuple[Sequence[Any], Outcome | None]:
    """The replies, and what became of the steps that got none."""
    try:
        return await node.ask(commands, before_send=fence.check), None
    except Interrupted as exc:
        return exc.replies, unknown(exc.error)


def _is_oom(reply: Any) -> bool:
    return isinstance(reply, ResponseError) and str(reply).startswith(("OOM", "command not allowed when used memory"))


def _plain(batch: Sequence[Command]) -> list[Command]:
    return [command for command in batch if command not in (("MULTI",), ("EXEC",))]


def _commands(step: SetUser | DropUser, secrets: Secrets) -> list[Command] | Outcome:
    name = step.external.name
    if isinstance(step, DropUser):
        return [("ACL", "DELUSER", name)]
    try:
        setting: Command = ("ACL", "SETUSER", name, *_fresh(step.user, secrets))
    except SecretNotFound as exc:
        return failed(TerminalError(str(exc), reason="SecretNotFound"))
    # In one transaction: were the connection to break in between, nothing would tell that sessions are to be ended.
    return [("MULTI",), setting, ("CLIENT", "KILL", "USER", name), ("EXEC",)] if step.kill else [setting]


def _fresh(user: User, secrets: Secrets) -> list[str]:
    """From scratch: SETUSER only ever adds. `resetchannels`, because `reset` follows acl-pubsub-default."""
    state = "on" if user.enabled else "off"
    if user.passwords is None:
        return ["resetkeys", "resetchannels", "-@all", "clearselectors", "sanitize-payload", *user.rules, state]
    logins = ["nopass"] if user.nopass else [f"#{_digest(secrets, reference)}" for reference in user.passwords]
    return ["reset", "resetchannels", *user.rules, *logins, state]


def _outcome(count: int, replies: Iterator[Any], lost: Outcome | None) -> Outcome:
    mine = [reply for _, reply in zip(range(count), replies, strict=False)]
    if len(mine) < count:
        return lost if lost is not None else SUCCEEDED
    done = mine[-1] if count > 1 and isinstance(mine[-1], list) else mine if count > 1 else []
    errors = [reply for reply in (*mine, *done) if isinstance(reply, ResponseError)]
    if errors:
        return failed(_invalid(errors[0]))
    return Outcome(Result.SUCCEEDED, {"sessions_ended": done[1]}) if done else SUCCEEDED


def _saved(outcomes: Sequence[Outcome], reply: Any) -> list[Outcome]:
    """A user that isn't in the server's file is gone with the next restart: that is a failure of its step."""
    if not isinstance(reply, ResponseError):
        return list(outcomes)
    error = failed(refused(reply, "ACL SAVE"))
    return [error if outcome.error is None else outcome for outcome in outcomes]


async def sweep_scratch(node: RedisNode) -> None:
    """Delete scratch users that are there although none should be: somebody's `ACL SAVE` or copy caught them."""
    (names,) = await node.read(("ACL", "USERS"))
    if isinstance(names, ResponseError):
        return
    left = [name for name in names if name.startswith(SCRATCH_USER_PREFIX)]
    if left:
        await node.read(("ACL", "DELUSER", *left))

"""Parameters of one Redis node: what it holds, and how they are set. I/O.

`CONFIG SET` takes all or none, so one refused parameter would keep the others from being set: the server names it, it is
noted as refused and left out, and the rest is tried again. What was set is read back: where the server holds something
else than was asked for, that is noted too, and the planner lets it rest. Notes are forgotten after a restart, and refusals
after a while, because their cause may be gone.

Note [No transactions out of memory]. Redis 7 refuses to queue anything after MULTI once it is over `maxmemory`, CONFIG SET
too. With a transaction here, a `maxmemory` that was set too low could never be put right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from redis.exceptions import ResponseError

from reconcilers.cache import parameters
from reconcilers.cache.model import Config, HeldConfig
from reconcilers.cache.parameters import Verdict
from reconcilers.cache.redis_nodes import Command, Interrupted, RedisNode, fields, info, pairs, refused, valued
from reconcilers.contract import (
    BackendError,
    Fence,
    Outcome,
    Result,
    TerminalError,
    TransientError,
    failed,
    unknown,
)

REFUSAL_LIFE_S: Final = 300.0


async def observe_config(node: RedisNode, wanted: Config | None) -> HeldConfig:
    """Owned parameters only. Raises `BackendError`."""
    asked = {} if wanted is None else wanted.parameters
    questions = [("CONFIG", "GET", name) for name in asked]
    server, stats, *replies = await node.read(("INFO", "server"), ("INFO", "commandstats"), *questions)
    identity = info(valued(server, "INFO server"))
    node.identify(identity)
    return HeldConfig(
        values=_values(list(asked), replies),
        verdicts=_verdicts(node, asked),
        has_file=bool(identity.get("config_file")),
        unsaved=_unsaved(node, info(valued(stats, "INFO commandstats"))),
    )


async def all_parameters(node: RedisNode) -> dict[str, str]:
    """Every parameter of the node, as the server shows it."""
    (reply,) = await node.read(("CONFIG", "GET", "*"))
    return pairs(valued(reply, "CONFIG GET *"))


def _values(names: Sequence[str], replies: Sequence[Any]) -> dict[str, str]:
    rows = {name: valued(reply, f"CONFIG GET {name}") for name, reply in zip(names, replies, strict=True)}
    return {name: parameters.canonical(name, row[1]) for name, row in rows.items() if row}


def _verdicts(node: RedisNode, asked: Mapping[str, str]) -> dict[str, Verdict]:
    found = {name: node.learnt.get((name, wanted)) for name, wanted in asked.items()}
    return {name: verdict for name, verdict in found.items() if verdict is not None}


def _unsaved(node: RedisNode, stats: Mapping[str, str]) -> bool:
    """What we know; else: something was set since the start, and the file never written."""
    if node.unsaved is not None:
        return node.unsaved
    return _successes(stats, "config|set") > 0 and _successes(stats, "config|rewrite") == 0


def _successes(stats: Mapping[str, str], command: str) -> int:
    row = fields(stats.get(f"cmdstat_{command}", ""))
    return int(row.get("calls", 0)) - int(row.get("failed_calls", 0))


async def set_parameters(node: RedisNode, changes: Mapping[str, str], fence: Fence, *, persist: bool) -> Outcome:
    """Set what the server takes. A refusal is the outcome's error, though the rest was set."""
    left, refusals, held = dict(changes), list[BackendError](), dict[str, str]()
    while left:
        try:
            done = await node.ask(_commands(left, persist=persist), before_send=fence.check)
        except Interrupted as exc:
            return unknown(exc.error)
        if not isinstance(done[0], ResponseError):
            held = _read_back(node, left, done[1 : 1 + len(left)])
            unwritten = _rewritten(done[-1]) if persist else None
            node.unsaved = not persist or unwritten is not None
            refusals += [unwritten] if unwritten is not None else []
            break
        error = _refused_one(node, left, done[0])
        refusals.append(error)
        if isinstance(error, TransientError) or error.reason in ("PermissionDenied", "Refused"):
            break
    return _concluded(held, refusals)


def _commands(changes: Mapping[str, str], *, persist: bool) -> list[Command]:
    setting = ("CONFIG", "SET", *(word for row in changes.items() for word in row))
    reading: list[Command] = [("CONFIG", "GET", name) for name in changes]
    writing: list[Command] = [("CONFIG", "REWRITE")] if persist else []
    return [setting, *reading, *writing]


def _refused_one(node: RedisNode, left: dict[str, str], reply: ResponseError) -> BackendError:
    """Note the refusal and take the parameter out; an error that names none is everybody's."""
    translated = refused(reply, "CONFIG SET")
    name = parameters.refused_parameter(str(reply))
    if translated.reason != "Refused" or name not in left:
        return translated
    verdict = parameters.refusal(str(reply))
    node.learnt.put((name, left.pop(name)), verdict, REFUSAL_LIFE_S)
    return TerminalError(verdict.message, reason=verdict.reason or "InvalidParameter")


def _read_back(node: RedisNode, changes: Mapping[str, str], replies: Sequence[Any]) -> dict[str, str]:
    """What the server holds now, noting where that isn't what was asked for."""
    held = {}
    for (name, wanted), reply in zip(changes.items(), replies, strict=True):
        if isinstance(reply, ResponseError) or not reply:
            continue
        held[name] = parameters.canonical(name, reply[1])
        if not parameters.holds(name, wanted, held[name]):
            node.learnt.put((name, wanted), Verdict(held=held[name]))
    return held


def _rewritten(reply: Any) -> BackendError | None:
    if not isinstance(reply, ResponseError):
        return None
    if "without a config file" in str(reply):
        # The plan has warned of it; what is declared is in force all the same.
        return None
    return TerminalError(f"CONFIG REWRITE: {reply}", reason="RewriteFailed")


def _concluded(held: Mapping[str, str], errors: Sequence[BackendError]) -> Outcome:
    if not errors:
        return Outcome(Result.SUCCEEDED, {"held": dict(held)})
    outcome = failed(errors[0])
    return Outcome(outcome.result, {**outcome.details, "held": dict(held)}, outcome.error)


async def rewrite_config(node: RedisNode, fence: Fence) -> Outcome:
    """Write the server's file."""
    try:
        (reply,) = await node.ask([("CONFIG", "REWRITE")], before_send=fence.check)
    except Interrupted as exc:
        return unknown(exc.error)
    error = _rewritten(reply)
    if error is not None:
        return failed(error)
    node.unsaved = False
    return Outcome(Result.SUCCEEDED)

"""Is a new generation what the old one is? Counts, a sample of documents, and queries that people declared. I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from reconcilers.contract import Fence, TerminalError
from reconcilers.search.feeding import DocKey, Feeder, address
from reconcilers.search.wire import Wire, path_of
from schemas.search import RankCheck, Verify

ROUNDS: Final = 4
"""How often a document that differs is looked at again: it may be changing all the time."""


async def verified(wire: Wire, feeder: Feeder, verify: Verify, fence: Fence) -> dict[str, Any]:
    """What was compared. Raises `TerminalError` VerificationFailed."""
    sample = feeder.sample(verify.sample)
    await _compare(wire, feeder, sample, fence)
    await wire.ask("POST", path_of(feeder.index, "_refresh"))
    for number, check in enumerate(verify.queries):
        await _ranked(wire, feeder, check, number)
    old, new = await feeder.counts()
    return {"documents": new, "documents_of_source": old, "sampled": len(sample), "queries": len(verify.queries)}


async def _compare(wire: Wire, feeder: Feeder, sample: Sequence[DocKey], fence: Fence) -> None:
    """A document that differs may have been changed since the last pass: only one that stays as it is and differs counts."""
    numbers: dict[DocKey, Any] = {}
    for _ in range(ROUNDS):
        differing = await _differing(wire, feeder, sample)
        if not differing:
            return
        same = [key for key, number in differing.items() if key in numbers and numbers[key] == number]
        if same:
            message = f"{len(same)} of {len(sample)} documents differ, {same[0]} for one"
            raise TerminalError(message, reason="VerificationFailed")
        numbers, sample = dict(differing), list(differing)
        await feeder.pass_once(fence)


async def _differing(wire: Wire, feeder: Feeder, sample: Sequence[DocKey]) -> Mapping[DocKey, Any]:
    """Document → its sequence number in the source (None when it is gone there)."""
    if not sample:
        return {}
    body = {"docs": [address(key) for key in sample]}
    old = (await wire.ask("POST", path_of(feeder.source, "_mget"), body))["docs"]
    new = (await wire.ask("POST", path_of(feeder.index, "_mget"), body))["docs"]
    return {
        key: mine.get("_seq_no")
        for key, mine, theirs in zip(sample, old, new, strict=True)
        if (mine.get("found"), mine.get("_source")) != (theirs.get("found"), theirs.get("_source"))
    }


async def _ranked(wire: Wire, feeder: Feeder, check: RankCheck, number: int) -> None:
    old, new = [await _first(wire, index, check) for index in (feeder.source, feeder.index)]
    missing = [one for one in check.ids if one not in new]
    if missing:
        message = f"query {number}: {', '.join(missing[:5])} isn't among the first {check.size}"
        raise TerminalError(message, reason="VerificationFailed")
    shared = len(set(old) & set(new)) / max(1, len(old))
    if shared < check.overlap:
        message = f"query {number}: {shared:.0%} of the old first {check.size} are among the new ones, wanted {check.overlap:.0%}"
        raise TerminalError(message, reason="VerificationFailed")


async def _first(wire: Wire, index: str, check: RankCheck) -> list[str]:
    body = {"query": check.query, "size": check.size, "_source": False}
    answer = await wire.ask("POST", path_of(index, "_search"), body)
    return [str(hit["_id"]) for hit in answer["hits"]["hits"]]

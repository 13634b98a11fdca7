"""Aliases over one or several indices. I/O.

What is declared may name an index or an alias that stands for one (that of a `search.index`): it is resolved at every look,
and a migration moves all aliases of a generation with it. An action on a missing alias beside a valid one answers 200 with
`errors: true`, so every removal says that it must exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconcilers.contract import BackendError, ExternalId, Fence, Outcome, TerminalError
from reconcilers.search.documents import Document, Held, PutDocument, RemoveDocument
from reconcilers.search.wire import Wire, done, path_of

Listing = Mapping[str, Mapping[str, Any]]
"""Index → alias → properties."""


class Aliases:
    """The aliases of one cluster."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def observe(self, wanted: Mapping[ExternalId, Document | None]) -> dict[ExternalId, Any]:
        """All by one request."""
        listing = await self.listed()
        found = {external: _seen(external.name, desired, listing) for external, desired in wanted.items()}
        return {external: one for external, one in found.items() if one is not None}

    async def put(self, step: PutDocument, fence: Fence) -> Outcome:
        """All in one change of the cluster's state."""
        listing, alias = await self.listed(), step.external.name
        wanted = _wanted(step.document.body, listing)
        holding = [index for index, aliases in listing.items() if alias in aliases]
        actions: list[dict[str, Any]] = [
            {"remove": {"index": index, "alias": alias, "must_exist": True}} for index in holding if index not in wanted
        ]
        actions += [{"add": {"index": index, "alias": alias, **properties}} for index, properties in wanted.items()]
        await self._act(actions, fence)
        return done(indices=sorted(wanted))

    async def remove(self, step: RemoveDocument, fence: Fence) -> Outcome:
        """From every index that has it."""
        holding = [index for index, aliases in (await self.listed()).items() if step.external.name in aliases]
        actions = [{"remove": {"index": one, "alias": step.external.name, "must_exist": True}} for one in holding]
        if actions:
            await self._act(actions, fence)
        return done()

    async def listed(self) -> Listing:
        """Of every index, by one request."""
        answer = await self._wire.ask("GET", "/_alias", params={"expand_wildcards": "all"})
        return {index: row["aliases"] for index, row in answer.items()}

    async def _act(self, actions: list[dict[str, Any]], fence: Fence) -> None:
        answer = await self._wire.send(fence, "POST", path_of("_aliases"), {"actions": actions})
        if answer.get("errors"):
            raise TerminalError(f"only some aliases were changed: {str(answer)[:300]}", reason="AliasesMovedInPart")


def _seen(alias: str, desired: Document | None, listing: Listing) -> Held | BackendError | None:
    holding = {index: aliases[alias] for index, aliases in listing.items() if alias in aliases}
    if desired is None:
        return Held(holding) if holding else None
    try:
        wanted = _wanted(desired.body, listing)
    except TerminalError as exc:
        return exc
    if not holding:
        return None
    if not desired.body["write_index"]:  # which one is written to is nobody's declaration then
        holding = {index: {k: v for k, v in row.items() if k != "is_write_index"} for index, row in holding.items()}
    else:
        holding = {
            index: {k: v for k, v in row.items() if (k, v) != ("is_write_index", False)}
            for index, row in holding.items()
        }
    return Held(holding, wanted)


def _wanted(body: Mapping[str, Any], listing: Listing) -> dict[str, dict[str, Any]]:
    """Concrete index → properties. Raises `TerminalError` IndexNotFound."""
    wanted: dict[str, dict[str, Any]] = {}
    for name in body["indices"]:
        for index in _resolved(name, listing):
            wanted[index] = dict(body["properties"])
    if body["write_index"]:
        writes = _resolved(body["write_index"], listing)
        for index in writes:
            wanted.setdefault(index, dict(body["properties"]))["is_write_index"] = True
    return wanted


def _resolved(name: str, listing: Listing) -> list[str]:
    if name in listing:
        return [name]
    found = [index for index, aliases in listing.items() if name in aliases]
    if not found:
        raise TerminalError(f"there is no index {name}", reason="IndexNotFound")
    return found

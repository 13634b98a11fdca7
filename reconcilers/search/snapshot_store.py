"""Snapshots on the server: listed by name, taken, removed, restored. I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reconcilers.contract import BackendError, ExternalId, Fence, Outcome, TerminalError
from reconcilers.search.snapshots import Policy, RemoveSnapshot, Taken, TakeSnapshot, taken_at
from reconcilers.search.wire import Refused, Wire, done, path_of


class Snapshots:
    """The snapshots of one cluster."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def observe(self, wanted: Mapping[ExternalId, Policy | None]) -> dict[ExternalId, Any]:
        """One request for each repository."""
        repositories = {desired.repository for desired in wanted.values() if desired is not None}
        listed = {repository: await self._listed(repository) for repository in repositories}
        return {
            external: () if desired is None else _of(external.name, listed[desired.repository])
            for external, desired in wanted.items()
        }

    async def _listed(self, repository: str) -> list[Mapping[str, Any]] | BackendError:
        try:
            answer = await self._wire.ask("GET", path_of("_snapshot", repository, "_all"), params={"verbose": False})
        except Refused as exc:
            return TerminalError(exc.message, reason="RepositoryMissing" if exc.status == 404 else "RepositoryBroken")
        rows: list[Mapping[str, Any]] = answer["snapshots"]
        return rows

    async def take(self, step: TakeSnapshot, fence: Fence) -> Outcome:
        """Begin it."""
        await self.begin(step.repository, step.snapshot, step.indices, fence)
        return done()

    async def begin(self, repository: str, snapshot: str, indices: Sequence[str], fence: Fence) -> None:
        """Without the state of the cluster: that is declared."""
        body = {"indices": ",".join(indices), "include_global_state": False, "ignore_unavailable": True}
        params = {"wait_for_completion": False}
        await self._wire.send(fence, "PUT", path_of("_snapshot", repository, snapshot), body, params=params)

    async def remove(self, step: RemoveSnapshot, fence: Fence) -> Outcome:
        """Remove it with what no other snapshot needs."""
        path = path_of("_snapshot", step.repository, step.snapshot)
        await self._wire.send(fence, "DELETE", path, absent=None, timeout_s=60.0)
        return done()


def _of(policy_name: str, listed: list[Mapping[str, Any]] | BackendError) -> tuple[Taken, ...] | BackendError:
    if isinstance(listed, BackendError):
        return listed
    rows = [(row["snapshot"], taken_at(policy_name, row["snapshot"]), row["state"]) for row in listed]
    return tuple(Taken(name, at, state) for name, at, state in rows if at is not None)

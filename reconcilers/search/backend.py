"""Elasticsearch targets. All I/O of the service ends here; client libraries don't get past it.

Tables lead from setting types and steps to the modules that do the work. Steps of different objects are taken at the same
time, as many as the service has in a batch; a fault of one object is its outcome.

Nothing in Elasticsearch tells when somebody changes an index or a role; the version of the cluster state does for all
that stands there, and asking for it costs a millisecond or two: `hints` polls it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from reconcilers.contract import (
    Affected,
    Backend,
    BackendError,
    Connection,
    Discovered,
    ExternalId,
    Fence,
    Hint,
    Measurement,
    NotSent,
    Outcome,
    Result,
    Step,
    StreamAnswer,
    StreamRequest,
    TerminalError,
    TransientError,
    Unreachable,
    failed,
    unknown,
)
from reconcilers.search import bulk_stream, samples, weighing
from reconcilers.search import steps as todo
from reconcilers.search.aliases import Aliases
from reconcilers.search.copying import Copies
from reconcilers.search.discovering import aliases, discovered, suggesters
from reconcilers.search.document_store import PLACES, Documents
from reconcilers.search.documents import ALIAS, LIFECYCLE, ROLE, SYNONYMS, USER, PutDocument, RemoveDocument
from reconcilers.search.indices import Indices
from reconcilers.search.model import INDEX
from reconcilers.search.query_log import QueryLog
from reconcilers.search.security import Security
from reconcilers.search.snapshot_store import Snapshots
from reconcilers.search.snapshots import SNAPSHOT_POLICY, RemoveSnapshot, TakeSnapshot
from reconcilers.search.suggester_store import Suggesters
from reconcilers.search.suggesters import SUGGESTER, PutSubfield
from reconcilers.search.switching import Switches
from reconcilers.search.synonym_sets import SynonymSets
from reconcilers.search.wire import OutcomeUnknown, Wire, open_wire, outcome_of
from schemas.search import Target

POLL_S: Final = 1.0
OLDEST: Final = (8,)

DESCRIBED: Final = {
    "flat_settings": True,
    "filter_path": "*.aliases,*.settings.index.number_of_*,*.settings.index*number_of_*",
}
SYNONYMS_MODULE: Final = "mapper-extras"
"""Without it the server answers for its synonyms API and refuses every set."""
MODULES: Final = {LIFECYCLE: "x-pack-ilm"}
"""Modules without which the server refuses objects of a kind, also where it says that it could."""

Found = Mapping[ExternalId, Any]
Observer = Callable[[Mapping[ExternalId, Any]], Awaitable[Found]]
Applier = Callable[[Any, Fence], Awaitable[Outcome]]


async def connect(connection: Connection) -> Backend:
    """Open a target. Raises `Unreachable`, `TerminalError`, `SecretNotFound`."""
    wire = await open_wire(connection)
    backend = ElasticsearchBackend(wire, connection)
    try:
        await backend.greet()
    except BaseException:
        await backend.close()
        raise
    return backend


class Course:
    """The fence of one step of many writes: the first must begin in time, the others while the shard is ours."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        self.writes = 0

    @property
    def token(self) -> tuple[int, int]:
        """See the contract."""
        return self._fence.token

    def check(self) -> None:
        """Called when the step begins, then before each write."""
        if self.writes:
            self.still_ours()
        else:
            self._fence.check()
        self.writes += 1

    def still_ours(self) -> None:
        """See the contract."""
        self._fence.still_ours()


class ElasticsearchBackend:
    """One cluster."""

    def __init__(self, wire: Wire, connection: Connection) -> None:
        self.wire = wire
        self.target: Target = connection.value
        self.version: tuple[int, ...] = ()
        self.modules: frozenset[str] = frozenset()
        """Modules and plugins that every node has."""
        self.secured = False
        self._incarnation: str | None = None
        self._state: Any = None
        """Version of the cluster state when it was last asked for; that of the connection, so that no change slips through."""
        self.copies = Copies(wire)
        self.synonyms = SynonymSets(wire)
        self.indices = Indices(wire, self.copies, self.synonyms)
        self.switches = Switches(wire, self.copies)
        self.queries = QueryLog()
        self.documents = Documents(wire)
        self.aliases = Aliases(wire)
        self.snapshots = Snapshots(wire)
        self.suggesters = Suggesters(wire, self.indices)
        self.security = Security(
            wire,
            connection.secrets,
            verify_passwords=self.target.verify_passwords,
            own_name=self.target.username,
        )
        self._observers: dict[str, Observer] = {
            INDEX: self.indices.observe,
            ALIAS: self.aliases.observe,
            SNAPSHOT_POLICY: self.snapshots.observe,
            SUGGESTER: self.suggesters.observe,
            ROLE: self.security.observe_roles,
            USER: self.security.observe_users,
            **dict.fromkeys(PLACES, self.documents.observe),
        }
        self._appliers: dict[type[Step], Applier] = {
            **self._index_appliers(),
            PutDocument: self._put,
            RemoveDocument: self._remove,
            TakeSnapshot: self.snapshots.take,
            RemoveSnapshot: self.snapshots.remove,
            PutSubfield: self.suggesters.put,
        }

    def _index_appliers(self) -> dict[type[Step], Applier]:
        indices, copies, switches = self.indices, self.copies, self.switches
        return {
            todo.CreateIndex: indices.create,
            todo.ChangeIndex: indices.change,
            todo.ReopenIndex: indices.reopen,
            todo.OpenIndex: indices.open,
            todo.BackfillFields: indices.backfill,
            todo.DropIndex: indices.drop,
            todo.PointAlias: switches.point,
            todo.CreateGeneration: copies.create,
            todo.StartCopy: copies.start,
            todo.RecordProgress: copies.progress,
            todo.MarkGeneration: copies.mark,
            todo.ListDocuments: copies.list_documents,
            todo.CompareDocuments: copies.compare,
            todo.FeedChanges: copies.feed_changes,
            todo.VerifyGeneration: copies.verify,
            todo.SwitchAlias: switches.switch,
            todo.FinishSwitch: switches.finish,
            todo.ReleaseHold: switches.release,
            todo.RetireGeneration: copies.retire,
            todo.DropGeneration: copies.drop,
        }

    async def _put(self, step: PutDocument, fence: Fence) -> Outcome:
        table: dict[str, Applier] = {
            ALIAS: self.aliases.put,
            ROLE: self.security.put_role,
            USER: self.security.put_user,
            **({SYNONYMS: self.synonyms.put} if self.synonyms.is_inline else {}),
        }
        return await table.get(step.external.setting_type, self.documents.put)(step, fence)

    async def _remove(self, step: RemoveDocument, fence: Fence) -> Outcome:
        table: dict[str, Applier] = {
            ALIAS: self.aliases.remove,
            ROLE: self.security.remove_role,
            USER: self.security.remove_user,
            **({SYNONYMS: self.synonyms.remove} if self.synonyms.is_inline else {}),
        }
        return await table.get(step.external.setting_type, self.documents.remove)(step, fence)

    async def greet(self) -> None:
        """See who answers."""
        try:
            about = await self.wire.ask("GET", "/")
        except OutcomeUnknown as exc:
            hint = "" if self.wire.secure else "; does it speak HTTPS?"
            raise Unreachable(f"{exc.message}{hint}", reason=exc.reason) from exc
        if not isinstance(about, Mapping) or "version" not in about:
            raise TerminalError("what answers there isn't Elasticsearch", reason="NotElasticsearch")
        number = str(about["version"]["number"])
        self.version = tuple(int(part) for part in number.partition("-")[0].split("."))
        nodes = await self.wire.ask(
            "GET", "/_nodes/plugins", params={"filter_path": "nodes.*.modules.name,nodes.*.plugins.name"}
        )
        each = [
            {one["name"] for kind in ("modules", "plugins") for one in node.get(kind, ())}
            for node in nodes.get("nodes", {}).values()
        ]
        self.modules = frozenset(set.intersection(*each)) if each else frozenset()
        login = await self.wire.call("GET", "/_security/_authenticate")
        self.secured = login.status == 200
        self._settle_synonyms()
        self._incarnation = str(about.get("cluster_uuid", ""))
        self._state = await self._state_now()

    def _settle_synonyms(self) -> None:
        """By the server's own API, or inline: see `synonym_sets`."""
        self.synonyms.is_inline = SYNONYMS_MODULE not in self.modules
        self._observers[SYNONYMS] = self.synonyms.observe if self.synonyms.is_inline else self.documents.observe

    async def _state_now(self) -> Any:
        return await self.wire.ask("GET", "/_cluster/state/version", params={"filter_path": "version,state_uuid"})

    @property
    def incarnation(self) -> str | None:
        """Identity of the cluster: what is declared survives its restarts."""
        return self._incarnation

    def unsupported(self, setting_type: str) -> str | None:
        """See the contract."""
        version = ".".join(map(str, self.version))
        if self.version < OLDEST:
            return f"this is Elasticsearch {version}: {setting_type} needs 8.0 or newer"
        if setting_type not in self._observers:
            return f"this daemon knows no {setting_type} of Elasticsearch"
        if setting_type in (ROLE, USER) and not self.secured:
            return f"security is off on this server: {setting_type} needs it"
        module = MODULES.get(setting_type)
        if module is not None and module not in self.modules:
            return f"this build of Elasticsearch {version} hasn't the module {module}: {setting_type} needs it"
        return None

    async def observe(self, wanted: Mapping[ExternalId, Any]) -> Found:
        """See the contract."""
        parts = {kind: {e: d for e, d in wanted.items() if e.setting_type == kind} for kind in self._observers}
        asked = [(kind, part) for kind, part in parts.items() if part]
        answers = await asyncio.gather(*(self._observed(kind, part) for kind, part in asked))
        return {external: seen for answer in answers for external, seen in answer.items()}

    async def _observed(self, kind: str, part: Mapping[ExternalId, Any]) -> Found:
        try:
            return await self._observers[kind](part)
        except (TerminalError, TransientError) as exc:
            # One kind may be forbidden to us while the others are well.
            return dict.fromkeys(part, exc)

    async def apply(self, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        """See the contract."""
        return await asyncio.gather(*(self._applied(step, fence) for step in steps))

    async def _applied(self, step: Step, fence: Fence) -> Outcome:
        applier = self._appliers.get(type(step))
        if applier is None:
            return failed(TerminalError("this target can't carry out the step", reason="Unsupported"))
        course = Course(fence)
        try:
            course.check()
            return await applier(step, course)
        except NotSent:
            if course.writes <= 1:
                return Outcome(Result.NOT_SENT)
            return unknown(Unreachable("the shard was lost while the step was under way", reason="ShardLost"))
        except BackendError as exc:
            return outcome_of(exc)

    async def weigh(self, steps: Sequence[Step]) -> Sequence[Affected]:
        """See `contract.Weighing`."""
        return await weighing.weigh(self.wire, steps)

    def stream(self, request: StreamRequest) -> AbstractAsyncContextManager[StreamAnswer]:
        """Documents are written as they arrive. See `contract.Streamed`."""
        return bulk_stream.answered(self.wire, request)

    async def discover(self, setting_type: str, match: str) -> Sequence[Discovered]:
        """Indices by their alias, or by their name where they have none; documents by their name; suggesters by their index."""
        if self.unsupported(setting_type) is not None:
            return []
        if setting_type == INDEX:
            return await self.indices.discover(match)
        if setting_type == ALIAS:
            return aliases(await self.aliases.listed(), match)
        if setting_type == SUGGESTER:
            return suggesters(await self.indices.mapped(), match)
        if setting_type in (ROLE, USER):
            return discovered(setting_type, await self.security.listed(setting_type.partition(".")[2]), match)
        if setting_type == SYNONYMS and self.synonyms.is_inline:
            return discovered(setting_type, await self.synonyms.raw(), match)
        if setting_type in PLACES:
            return discovered(setting_type, await self.documents.listed(setting_type), match)
        return []

    async def sample(self) -> Sequence[Measurement]:
        """Health, nodes, indices, and the queries that went through us."""
        health, nodes, described, stats = await asyncio.gather(
            self.wire.ask("GET", "/_cluster/health"),
            self.wire.ask("GET", "/_nodes/stats/jvm,thread_pool,fs"),
            self.wire.ask("GET", "/*", params=DESCRIBED, absent={}),
            self.wire.ask("GET", "/_stats/docs,store,indexing,search,merge,refresh,segments"),
        )
        return [
            *samples.of_cluster(health),
            *samples.of_nodes(nodes),
            *samples.of_indices(described, stats["indices"]),
            *self.queries.measurements(),
        ]

    async def hints(self) -> AsyncIterator[Hint]:
        """The cluster state changed since we connected. Our own changes are among them."""
        while True:
            await asyncio.sleep(POLL_S)
            before, self._state = self._state, await self._state_now()
            if self._state != before:
                yield Hint(None, "the cluster state changed")

    async def close(self) -> None:
        """Release connections."""
        await self.wire.close()


__all__ = ["ElasticsearchBackend", "Unreachable", "connect"]

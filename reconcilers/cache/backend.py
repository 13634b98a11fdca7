"""Redis and Memcached targets. All I/O of the service ends here; client libraries don't get past it.

Theory of operation. A target has one or more nodes, each observed and driven by itself at the same time as the others. A
node that gives no answer is silent: unknown, not absent; the others are driven all the same, and only when all are
silent is the target unreachable. Tables lead from setting types and steps to the modules that do the work.

Settings of servers emit no signal when somebody else changes them, so `hints` polls twice a second: Redis for its run id
and its counters of administrative commands (0.1 ms), Memcached for its process and its settings.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from reconcilers.cache import census, discovered, memcached_node, redis_config, redis_nodes, redis_users, samples
from reconcilers.cache.acl import Account
from reconcilers.cache.keyspace import RedisKeyspace
from reconcilers.cache.keyspace_memcached import MemcachedKeyspace
from reconcilers.cache.memcached_node import MemcachedNode
from reconcilers.cache.model import (
    DEFAULT_USER,
    MEMCACHED_CONFIG,
    REDIS_CONFIG,
    REDIS_USER,
    Config,
    ObservedConfig,
    ObservedSettings,
    ObservedUser,
)
from reconcilers.cache.namespace import NAMESPACE, DeregisterNamespace, RegisterNamespace
from reconcilers.cache.redis_nodes import RedisNode
from reconcilers.cache.redis_users import FoundUser, Login
from reconcilers.cache.several import (
    Applier,
    Found,
    Observer,
    Wanted,
    applied_by,
    each,
    each_by_itself,
    merged,
    observed_by,
    on_each_node,
    settled,
)
from reconcilers.cache.steps import ChangeSettings, DropUser, RewriteConfig, SetParameters, SetUser
from reconcilers.contract import (
    NOTHING_TOLD,
    Affected,
    Backend,
    BackendError,
    Connection,
    Discovered,
    Fence,
    Hint,
    Measurement,
    Outcome,
    Step,
    TerminalError,
)
from reconcilers.planning import Nodes
from schemas.cache import Target

POLL_S: Final = 0.5
CENSUS_S: Final = 60.0
"""Least time between two looks at some of the keys: a thousand of them cost the server some milliseconds."""
CENSUS_KEYS: Final = 1_000
OLDEST_REDIS: Final = (7,)
KEYSPACE_TIMEOUT_S: Final = 5.0


async def connect(connection: Connection) -> Backend:
    """Open a target. Raises `Unreachable` when no node answers, `TerminalError`, `SecretNotFound`."""
    target: Target = connection.value
    if target.kind == "memcached":
        return await MemcachedBackend.connect(target)
    return await RedisBackend.connect(connection)


class NamespaceCensus:
    """Monitoring of what lies in a target, by a sample of its keys now and then."""

    def __init__(self, keyspace: RedisKeyspace | MemcachedKeyspace) -> None:
        self._keyspace = keyspace
        self._names: dict[str, str] = {}
        self._due = 0.0

    async def observe(self, wanted: Wanted) -> Found:
        """Observe the registrations, and remember the names of what is registered: somebody may only be asking what
        would become of a namespace, and an observation leaves no trace of that."""
        found = await self._keyspace.observe(wanted)
        for external, definition in wanted.items():
            if external not in found:
                self._names.pop(external.name, None)
            elif definition is not None:
                self._names[external.name] = definition.name
        return found

    async def sample(self) -> Sequence[Measurement]:
        """Nothing before the next look is due. A census that fails says so and keeps no other value back."""
        if time.monotonic() < self._due:
            return []
        self._due = time.monotonic() + CENSUS_S
        try:
            found = await self._keyspace.census(CENSUS_KEYS)
        except BackendError as exc:
            return [Measurement("census_failures", 1, {"reason": exc.reason})]
        return census.measurements(found, [(name, prefix) for prefix, name in self._names.items()])


# --- redis -------------------------------------------------------------------------------------------------------------


class RedisBackend:
    """One target of one or more Redis nodes."""

    def __init__(self, nodes: Sequence[RedisNode], target: Target, login: Login) -> None:
        self.nodes = tuple(nodes)
        self.keyspace = RedisKeyspace(self.nodes[0].client)
        """Namespaces live on the first node: the others are its replicas, or not part of them."""
        self._census = NamespaceCensus(self.keyspace)
        self._target = target
        self._login = login
        self._observers: dict[str, Observer] = {
            REDIS_USER: self._observe_users,
            REDIS_CONFIG: self._observe_config,
            NAMESPACE.setting_type: self._census.observe,
        }
        namespaces = each_by_itself(self.keyspace.apply)
        self._appliers: dict[type[Step], Applier] = {
            SetUser: self._apply_users,
            DropUser: self._apply_users,
            SetParameters: each_by_itself(self._set_parameters),
            RewriteConfig: each_by_itself(self._rewrite),
            RegisterNamespace: namespaces,
            DeregisterNamespace: namespaces,
        }

    @classmethod
    async def connect(cls, connection: Connection) -> RedisBackend:
        """Open all nodes and see who answers."""
        target: Target = connection.value
        login = Login(target.username or DEFAULT_USER, target.password, connection.secrets)
        nodes = [redis_nodes.node_at(url, connection) for url in target.urls]
        backend = cls(nodes, target, login)
        try:
            await each(nodes, backend._greet)
        except BaseException:
            await backend.close()
            raise
        return backend

    async def _greet(self, node: RedisNode) -> None:
        await node.poll()
        if node.version >= OLDEST_REDIS:
            await redis_users.sweep_scratch(node)
        if self._target.save_acl:
            (reply,) = await node.read(("CONFIG", "GET", "aclfile"))
            if redis_nodes.valued(reply, "CONFIG GET aclfile")[1:] in ([], [""]):
                msg = f"save_acl: {node.name} was started without an aclfile"
                raise TerminalError(msg, reason="NoAclFile")

    @property
    def incarnation(self) -> str | None:
        """Run ids of the nodes; `?` for one that never answered."""
        if all(node.run_id is None for node in self.nodes):
            return None
        return "+".join(node.run_id or "?" for node in self.nodes)

    def unsupported(self, setting_type: str) -> str | None:
        """See the contract."""
        if setting_type not in self._observers:
            return f"the target is a Redis server: {setting_type} needs one of kind memcached"
        old = [node for node in self.nodes if node.version and node.version < OLDEST_REDIS]
        if old and setting_type in (REDIS_USER, REDIS_CONFIG):
            version = ".".join(map(str, old[0].version))
            return f"{old[0].name} is Redis {version}: {setting_type} needs 7.0 or newer"
        return None

    async def observe(self, wanted: Wanted) -> Found:
        """See the contract."""
        return await observed_by(self._observers, wanted)

    async def apply(self, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        """See the contract."""
        return await applied_by(self._appliers, steps, fence)

    async def discover(self, setting_type: str, match: str) -> Sequence[Discovered]:
        """Users by their names, parameters by theirs. A namespace isn't the server's: nobody else made any."""
        if setting_type == REDIS_CONFIG:
            return discovered.redis_config(await each(self.nodes, redis_config.all_parameters), match)
        if setting_type != REDIS_USER:
            return []
        nodes = await each(self.nodes, lambda node: redis_users.described_users(node, match))
        names = sorted({name for found in nodes.held.values() for name in found})
        held = {name: {node: found.get(name) for node, found in nodes.held.items()} for name in names}
        return [discovered.redis_user(name, Nodes(rows, nodes.silent)) for name, rows in held.items()]

    async def sample(self) -> Sequence[Measurement]:
        """Every node that answers, and what a look at some of the keys says."""
        nodes = await each(self.nodes, _redis_sample)
        return [*samples.of_nodes(nodes), *await self._census.sample()]

    async def hints(self) -> AsyncIterator[Hint]:
        """Somebody else administered a node, or it was restarted. Ends with `Unreachable` when no node answers."""
        while True:
            await asyncio.sleep(POLL_S)
            polled = await each(self.nodes, RedisNode.poll)
            for node, reason in polled.held.items():
                if reason is not None:
                    yield Hint(None, f"{node}: {reason}")

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(node.close() for node in self.nodes))

    # --- users ---------------------------------------------------------------------------------------------------------

    async def _observe_users(self, wanted: Wanted) -> Found:
        names = {external.name: desired for external, desired in wanted.items()}
        nodes = await each(self.nodes, lambda node: redis_users.observe_users(node, names, self._login))
        found = {external: _user(external.name, nodes) for external in wanted}
        return {external: seen for external, seen in found.items() if seen is not None}

    async def _apply_users(self, steps: Sequence[SetUser | DropUser], fence: Fence) -> Sequence[Outcome]:
        parts = [
            (node, [index for index, step in enumerate(steps) if not step.nodes or node.name in step.nodes])
            for node in self.nodes
        ]
        results = await asyncio.gather(
            *(self._apply_users_on(node, [steps[index] for index in mine], fence) for node, mine in parts)
        )
        outcomes: list[dict[str, Outcome]] = [{} for _ in steps]
        for (node, mine), result in zip(parts, results, strict=True):
            for index, outcome in zip(mine, result, strict=True):
                outcomes[index][node.name] = outcome
        return [merged(by_node) for by_node in outcomes]

    async def _apply_users_on(
        self, node: RedisNode, steps: Sequence[SetUser | DropUser], fence: Fence
    ) -> Sequence[Outcome]:
        if not steps:
            return []
        effect = redis_users.apply_users(node, steps, fence, self._login, save=self._target.save_acl)
        return await settled(effect, len(steps))

    async def weigh(self, steps: Sequence[Step]) -> Sequence[Affected]:
        """See `contract.Weighing`: clients that are logged in as a user."""
        if not any(isinstance(step, SetUser | DropUser) for step in steps):
            return [NOTHING_TOLD] * len(steps)
        found = await asyncio.gather(*(redis_users.clients_by_user(node) for node in self.nodes))
        clients = sum(found, Counter())
        counts = [clients[step.external.name] if isinstance(step, SetUser | DropUser) else 0 for step in steps]
        return [Affected({"clients": count}) if count else NOTHING_TOLD for count in counts]

    # --- parameters ----------------------------------------------------------------------------------------------------

    async def _observe_config(self, wanted: Wanted) -> Found:
        return {external: await self._config(desired) for external, desired in wanted.items()}

    async def _config(self, desired: Config | None) -> ObservedConfig:
        return ObservedConfig(await each(self.nodes, lambda node: redis_config.observe_config(node, desired)))

    async def _set_parameters(self, steps: Sequence[SetParameters], fence: Fence) -> Sequence[Outcome]:
        async def change(node: RedisNode, rows: Mapping[str, str]) -> Outcome:
            return await redis_config.set_parameters(node, rows, fence, persist=steps[0].persist)

        return [await on_each_node(self.nodes, steps[0].changes, change)]

    async def _rewrite(self, steps: Sequence[RewriteConfig], fence: Fence) -> Sequence[Outcome]:
        async def rewrite(node: RedisNode, _rows: Mapping[str, str]) -> Outcome:
            return await redis_config.rewrite_config(node, fence)

        return [await on_each_node(self.nodes, tuple((node, ()) for node in steps[0].nodes), rewrite)]


def _user(name: str, nodes: Nodes[dict[str, FoundUser]]) -> ObservedUser | BackendError | None:
    """One user from what every node said; None when no node has it. A retired one may still be on a silent node."""
    rows = {node: found[name] for node, found in nodes.held.items()}
    held: dict[str, Account | None] = {node: row.held for node, row in rows.items()}
    wanted: dict[str, Account] = {}
    for node, row in rows.items():
        if isinstance(row.wanted, BackendError):
            return row.wanted
        if row.wanted is not None:
            wanted[node] = row.wanted
    retired = not wanted
    if all(account is None for account in held.values()) and not (retired and nodes.silent):
        return None
    lockout = next((row.lockout for row in rows.values() if row.lockout is not None), None)
    return ObservedUser(Nodes(held, nodes.silent), wanted, lockout)


async def _redis_sample(node: RedisNode) -> list[Measurement]:
    everything, entries = await node.read(("INFO", "everything"), ("SLOWLOG", "LEN"))
    rows = redis_nodes.info(redis_nodes.valued(everything, "INFO"))
    return samples.redis_measurements(rows, int(redis_nodes.valued(entries, "SLOWLOG LEN")))


# --- memcached ---------------------------------------------------------------------------------------------------------


class MemcachedBackend:
    """One target of one or more Memcached nodes."""

    def __init__(self, nodes: Sequence[MemcachedNode]) -> None:
        self.nodes = tuple(nodes)
        self.keyspace = MemcachedKeyspace([node.connect for node in self.nodes], KEYSPACE_TIMEOUT_S)
        self._census = NamespaceCensus(self.keyspace)
        self._commands: dict[str, tuple[float, float]] = {}
        self._settings: dict[str, Mapping[str, str]] = {}
        self._observers: dict[str, Observer] = {
            MEMCACHED_CONFIG: self._observe_settings,
            NAMESPACE.setting_type: self._census.observe,
        }
        namespaces = each_by_itself(self.keyspace.apply)
        self._appliers: dict[type[Step], Applier] = {
            ChangeSettings: each_by_itself(self._change_settings),
            RegisterNamespace: namespaces,
            DeregisterNamespace: namespaces,
        }

    @classmethod
    async def connect(cls, target: Target) -> MemcachedBackend:
        """Open all nodes and see who answers."""
        backend = cls([memcached_node.node_at(url, target) for url in target.urls])
        try:
            await each(backend.nodes, backend._poll)
        except BaseException:
            await backend.close()
            raise
        return backend

    @property
    def incarnation(self) -> str | None:
        """Processes of the nodes; `?` for one that never answered."""
        if all(node.incarnation is None for node in self.nodes):
            return None
        return "+".join(node.incarnation or "?" for node in self.nodes)

    def unsupported(self, setting_type: str) -> str | None:
        """See the contract."""
        if setting_type in self._observers:
            return None
        return f"the target is a Memcached server: {setting_type} needs one of kind redis"

    async def observe(self, wanted: Wanted) -> Found:
        """See the contract."""
        return await observed_by(self._observers, wanted)

    async def apply(self, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        """See the contract."""
        return await applied_by(self._appliers, steps, fence)

    async def discover(self, setting_type: str, match: str) -> Sequence[Discovered]:
        """The settings of the server."""
        if setting_type != MEMCACHED_CONFIG:
            return []
        return discovered.memcached_config(await each(self.nodes, lambda node: node.stats("settings")), match)

    async def sample(self) -> Sequence[Measurement]:
        """Every node that answers, and what a look at some of the keys says."""
        nodes = await each(self.nodes, self._sample)
        return [*samples.of_nodes(nodes), *await self._census.sample()]

    async def _sample(self, node: MemcachedNode) -> list[Measurement]:
        stats, slabs = await node.stats(), await node.stats("slabs")
        measured = samples.memcached_measurements(stats, slabs, self._commands.get(node.name))
        self._commands[node.name] = samples.memcached_commands(stats)
        return measured

    async def hints(self) -> AsyncIterator[Hint]:
        """A node was restarted or its settings aren't what they were. Our own changes are among them."""
        while True:
            await asyncio.sleep(POLL_S)
            polled = await each(self.nodes, self._poll)
            for node, reason in polled.held.items():
                if reason is not None:
                    yield Hint(None, f"{node}: {reason}")

    async def _poll(self, node: MemcachedNode) -> str | None:
        restarted = await node.identify()
        settings = await node.stats("settings")
        before = self._settings.get(node.name, settings)
        self._settings[node.name] = settings
        if restarted:
            return "the server was restarted"
        return None if before == settings else "the server's settings changed"

    async def close(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(node.close() for node in self.nodes))

    async def _observe_settings(self, wanted: Wanted) -> Found:
        return {external: await self._observed(desired) for external, desired in wanted.items()}

    async def _observed(self, desired: Mapping[str, str] | None) -> ObservedSettings:
        return ObservedSettings(await each(self.nodes, lambda node: node.observe_settings(desired)))

    async def _change_settings(self, steps: Sequence[ChangeSettings], fence: Fence) -> Sequence[Outcome]:
        async def change(node: MemcachedNode, rows: Mapping[str, str]) -> Outcome:
            return await node.change_settings(rows, fence)

        return [await on_each_node(self.nodes, steps[0].changes, change)]

"""One Kafka cluster: everything the reconcilers ask of it and do to it.

Requests carry at most MOST_AT_ONCE objects, each request a call of its own to the administration thread, so that a user's
change gets its turn between the parts of a sweep. Kafka has nothing that tells of changes: the cluster is asked every POLL_S
whether it is there and still the same one; what somebody changes by hand is found by the next sweep.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from reconcilers.contract import (
    SUCCEEDED,
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
    Secrets,
    Step,
    TerminalError,
    Unreachable,
    failed,
    unknown,
)
from reconcilers.queue import discovered, kafka_groups, login, own, samples, weighing
from reconcilers.queue.access import ACL, QUOTA, USER, Own
from reconcilers.queue.access_steps import ChangeAcls, DropCredential, SetCredential, SetQuotas
from reconcilers.queue.admin import AdminThread, messages, send
from reconcilers.queue.canary import Canary
from reconcilers.queue.groups import GROUP
from reconcilers.queue.kafka_topics import Topics, reassign
from reconcilers.queue.kafka_users import Users
from reconcilers.queue.model import TOPIC, TOPIC_ID
from reconcilers.queue.route_plan import InstallRoute, RemoveRoute
from reconcilers.queue.routes import Routes
from reconcilers.queue.routing import ROUTE, canary_topic
from reconcilers.queue.settling import Settling
from reconcilers.queue.steps import (
    AcceptRecreated,
    ChangeConfig,
    CreateTopic,
    DeleteTopic,
    RaisePartitions,
    ReassignReplicas,
)
from schemas.queue import Target

T = TypeVar("T")

MOST_AT_ONCE: Final = 100
POLL_S: Final = 2.0
CALL_S: Final = 10.0
CLOSE_S: Final = 2.0

Observer = Callable[..., Mapping[str, Any]]
"""(client, wanted) → what is there, by name; runs in the administration thread."""
Apply = Callable[[Any, Sequence[Any], Callable[[], None]], list[Outcome]]
"""(client, steps, check) → outcomes; runs in the administration thread."""


async def connect(connection: Connection) -> Backend:
    """Open a target. Raises `Unreachable`, `TerminalError` (the cluster refuses the login), `SecretNotFound`."""
    return await QueueBackend.connect(connection)


class QueueBackend:
    """One target."""

    def __init__(self, connection: Connection, admin: AdminThread) -> None:
        self._target: Target = connection.value
        self.admin = admin
        self._cluster: str | None = None
        self._topics = Topics()
        self._settling = Settling(time.monotonic)
        self._users = Users(connection.secrets, self._settling, _own(self._target, connection.secrets), self._selves)
        self._observers: dict[str, Observer] = {
            TOPIC: self._topics.observe,
            USER: self._users.observe_users,
            ACL: self._users.observe_acls,
            QUOTA: self._users.observe_quotas,
            GROUP: kafka_groups.observe,
        }
        place = (connection.tenant, connection.target)
        self.reserved = connection.reserved
        """What the control plane keeps for itself in the cluster: see `own`."""
        self.client_options = login.client_options(self._target, connection.secrets)
        """For aiokafka."""
        self.routes = Routes(admin, self.client_options, place, self._settling)
        self._sampler = samples.Sampler(time.time)
        self._canary = Canary(admin, self.client_options, canary_topic(*place))
        self._appliers: dict[type[Step], Apply] = {
            CreateTopic: self._topics.create,
            ChangeConfig: self._topics.change,
            RaisePartitions: self._topics.raise_partitions,
            ReassignReplicas: reassign,
            AcceptRecreated: _accept,
            DeleteTopic: self._topics.delete,
            SetCredential: self._users.set_credentials,
            DropCredential: self._users.drop_credentials,
            ChangeAcls: self._users.change_acls,
            SetQuotas: self._users.set_quotas,
        }

    @classmethod
    async def connect(cls, connection: Connection) -> QueueBackend:
        """Log in, and learn which cluster it is."""
        options = login.admin_options(connection.value, connection.secrets)
        await login.shake_hands(connection.value)
        backend = cls(connection, AdminThread(options, ",".join(connection.value.bootstrap_servers)))
        try:
            await backend._greet()
        except Unreachable as exc:
            await backend.close()
            raise await login.explained(connection.value, connection.secrets, exc) from exc
        except BaseException:
            await backend.close()
            raise
        return backend

    @property
    def incarnation(self) -> str | None:
        """The cluster's id: brokers come and go, and nothing is lost by that."""
        return self._cluster

    def unsupported(self, setting_type: str) -> str | None:
        """See the contract."""
        del setting_type  # a cluster holds them all
        return None

    async def observe(self, wanted: Mapping[ExternalId, Any]) -> Mapping[ExternalId, Any]:
        """See the contract."""
        by_type: dict[str, dict[str, Any]] = {}
        for external, desired in wanted.items():
            by_type.setdefault(external.setting_type, {})[external.name] = desired
        found: dict[ExternalId, Any] = {}
        routes = by_type.pop(ROUTE, None)
        if routes is not None:
            observed = await _each_for_itself(self.routes.observe(routes), list(routes))
            observed |= self._own_affairs(ROUTE, routes)
            found |= {ExternalId(ROUTE, name): one for name, one in observed.items()}
        for setting_type, objects in by_type.items():
            for names in _parts(list(objects)):
                look = partial(self._observers[setting_type], wanted={name: objects[name] for name in names})
                observed = await _each_for_itself(self.admin.call(look, CALL_S), names)
                observed |= self._own_affairs(setting_type, {name: objects[name] for name in names})
                found |= {ExternalId(setting_type, name): one for name, one in observed.items()}
        return found

    async def apply(self, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        """See the contract. Steps of one sort share requests."""
        by_type: dict[type[Step], list[int]] = {}
        for index, step in enumerate(steps):
            by_type.setdefault(type(step), []).append(index)
        outcomes: dict[int, Outcome] = {}
        for index in [*by_type.pop(InstallRoute, ()), *by_type.pop(RemoveRoute, ())]:
            (outcomes[index],) = await self.routes.apply([cast("Any", steps[index])], fence)
        for kind, indices in by_type.items():
            for part in _parts(indices):
                taken = await self._take(self._appliers[kind], [steps[index] for index in part], fence)
                outcomes |= dict(zip(part, taken, strict=True))
        return [outcomes[index] for index in range(len(steps))]

    async def weigh(self, steps: Sequence[Step]) -> Sequence[Affected]:
        """See `contract.Weighing`."""
        return await self.admin.call(partial(weighing.weigh, steps=steps), CALL_S)

    async def discover(self, setting_type: str, match: str) -> Sequence[Discovered]:
        """See the contract."""
        if setting_type in (USER, ACL, QUOTA):
            look = partial(self._users.discover, setting_type=setting_type, match=match)
            return await self.admin.call(look, CALL_S)
        if setting_type == GROUP:
            groups = await self.admin.call(partial(kafka_groups.discover, match=match), CALL_S)
            return [discovered.group(name) for name in groups]
        if setting_type != TOPIC:
            return []
        topics = await self.admin.call(partial(self._topics.discover, match=match), CALL_S)
        return [discovered.topic(name, one) for name, one in sorted(topics.items())]

    async def sample(self) -> Sequence[Measurement]:
        """Cluster, topics and groups, and what the routes did."""
        found = await self.admin.call(self._sampler.sampled, CALL_S)
        delivery = await self._canary.measured() if self._target.canary else []
        return [*found, *samples.routed(await self.routes.counted()), *delivery]

    async def hints(self) -> AsyncIterator[Hint]:
        """The cluster is another one. Raises `Unreachable` when it doesn't answer."""
        while True:
            await asyncio.sleep(POLL_S)
            before = self._cluster
            await self._greet()
            if before != self._cluster:
                yield Hint(None, f"the cluster is {self._cluster} now, it was {before}")

    def _own_affairs(self, setting_type: str, wanted: Mapping[str, Any]) -> dict[str, TerminalError]:
        me = login.username(self._target)
        found = {
            name: own.affair(self.reserved, setting_type, name, desired) or own.denial(me, setting_type, name, desired)
            for name, desired in wanted.items()
        }
        return {name: why for name, why in found.items() if why is not None}

    def _selves(self) -> own.Selves:
        """Here, and where the log is, which may be here too."""
        reserved = (name.removeprefix("User:") for name in self.reserved if name.startswith("User:"))
        return own.Selves(frozenset({login.username(self._target), *reserved}), login.addresses(self._target))

    def refuse_own(self, topic: str) -> None:
        """Raise when the topic is where this control plane keeps its own records."""
        why = own.topic(self.reserved, topic)
        if why is not None:
            raise why

    def is_own(self, topic: str) -> bool:
        """True when `refuse_own` would."""
        return own.topic(self.reserved, topic) is not None

    async def close(self) -> None:
        """See the contract."""
        await self.routes.close()
        await self._canary.close()
        self.admin.close()
        await self.admin.closed(CLOSE_S)

    async def _greet(self) -> None:
        request = messages().MetadataRequest(topics=[], allow_auto_topic_creation=False)
        self._cluster = (await self.admin.call(lambda client: send(client, request), CALL_S)).cluster_id

    async def _take(self, apply: Apply, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        """One request. Once it is written, an error says nothing about its effect."""
        sent = False

        def check() -> None:
            nonlocal sent
            fence.check()
            sent = True

        try:
            return await self.admin.call(lambda client: apply(client, steps, check), CALL_S)
        except NotSent:
            return [Outcome(Result.NOT_SENT)] * len(steps)
        except BackendError as exc:
            return [unknown(exc) if sent else failed(exc)] * len(steps)


async def _each_for_itself(looking: Awaitable[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """What was found; when the cluster refuses to say, that is so for these objects, and not for those of other kinds."""
    try:
        return dict(await looking)
    except Unreachable:
        raise
    except BackendError as exc:
        return dict.fromkeys(names, exc)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many as one request carries."""
    return (items[start : start + MOST_AT_ONCE] for start in range(0, len(items), MOST_AT_ONCE))


def _own(target: Target, secrets: Secrets) -> tuple[str, Own]:
    """The user that the daemon itself logs in as."""
    security = target.security
    if security.password is None:
        return login.username(target), Own("", "")
    return login.username(target), Own(security.mechanism, secrets.fingerprint(secrets.reveal(security.password)))


def _accept(_client: Any, steps: Sequence[AcceptRecreated], check: Callable[[], None]) -> list[Outcome]:
    """Nothing is done: what happened is noted."""
    check()
    return [Outcome(SUCCEEDED.result, remember={TOPIC_ID: step.topic_id}) for step in steps]

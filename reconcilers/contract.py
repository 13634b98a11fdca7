"""What a reconciler is made of: identities, steps, plans, outcomes, and the protocol of a backend.

Theory of operation. The controller observes many objects of one target at once, plans each by a pure function, records the
intent, applies the steps in batches, records the outcome and observes again. An empty plan is convergence; a step that
succeeded is not, only the next observation is. Unknown is not absent: a backend that can't answer raises `Unreachable`,
and no plan is ever made from that.

Pure: no I/O, no clock, no client library.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from pydantic import BaseModel

from schemas.secret import SecretRef

Instant = float
"""Unix seconds."""


class ExternalId(NamedTuple):
    """Identity of an object in one backend: the kind and the object's own name there."""

    setting_type: str
    name: str


# --- errors: what went wrong at the boundary, translated in backend.py -------------------------------------------------


class BackendError(Exception):
    """Base of the errors a backend may raise; client-library types never cross the boundary."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason


class Unreachable(BackendError):
    """The backend gave no answer: nothing is known, nothing is planned."""

    def __init__(self, message: str, *, reason: str = "Unreachable") -> None:
        super().__init__(message, reason=reason)


class TransientError(BackendError):
    """The backend refused for now; the same request may succeed later."""

    def __init__(self, message: str, *, reason: str = "TransientError", retry_after_s: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


class TerminalError(BackendError):
    """The backend will refuse until the declaration or the backend's set-up changes."""


class NotSent(Exception):
    """The fence closed before the request was written: certainly no effect."""


class SecretNotFound(Exception):
    """A secret reference doesn't resolve."""

    def __init__(self, reference: SecretRef) -> None:
        super().__init__(f"secret not found: {reference}")
        self.reference = reference


# --- plans -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One effect on one object, in the imperative of the domain (`CreateTopic`). A value: equality is by content.

    Subclasses that can't be undone say so: `class DropTopic(Step, irreversible=True)`. They are taken only when the
    declaration's policy names them under `allow`. No field ever holds a secret: references and fingerprints only.
    """

    external: ExternalId
    irreversible: ClassVar[bool] = False

    def __init_subclass__(cls, *, irreversible: bool | None = None) -> None:
        # dataclass(slots=True) makes the class a second time, without the keyword: only set what is given.
        if irreversible is not None:
            cls.irreversible = irreversible

    @property
    def name(self) -> str:
        """`CreateTopic`."""
        return type(self).__name__

    def paths(self) -> Sequence[str]:
        """Owned paths (JSON pointers into the value) that it changes; none: the object as a whole."""
        return ()

    def summary(self) -> str:
        """One line for people: what will happen to what."""
        return f"{self.name} {self.external.name}"

    def details(self) -> dict[str, Any]:
        """JSON for events and plans."""
        return {"external": self.external.name}


class Difference(NamedTuple):
    """One owned path (JSON pointer into the value) on which desired and observed disagree. Never holds a secret."""

    path: str
    desired: Any
    observed: Any


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole decision for one object. No steps and no `blocked`: converged, or waiting when `wait_reason` is given."""

    steps: tuple[Step, ...] = ()
    differences: tuple[Difference, ...] = ()
    blocked: TerminalError | None = None
    """What is declared can't be reached by steps: becomes `Stalled` with this reason and message."""
    requeue_after_s: float | None = None
    wait_reason: str | None = None
    """The backend is on its way by itself; look again after `requeue_after_s`."""
    warnings: tuple[str, ...] = ()
    remember: Mapping[str, str] = field(default_factory=dict)
    """Kept in the setting's status once it is converged; see `Kind.recall`."""

    @property
    def converged(self) -> bool:
        """True when there is nothing to do, nothing to wait for and nothing in the way."""
        return not self.steps and self.blocked is None and self.wait_reason is None


CONVERGED = Plan()


class Result(StrEnum):
    """How a step ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    UNKNOWN = "unknown"
    NOT_SENT = "not_sent"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step. `details` go into the event and never hold a secret."""

    result: Result
    details: Mapping[str, Any] = field(default_factory=dict)
    error: BackendError | None = None
    remember: Mapping[str, str] = field(default_factory=dict)
    """Kept in the setting's status, in the commit that says how the step ended; see `Kind.recall`. Never a secret."""


SUCCEEDED = Outcome(Result.SUCCEEDED)


def failed(error: BackendError) -> Outcome:
    """The backend refused: certainly no effect, or an effect that the next observation shows."""
    return Outcome(Result.FAILED, {"reason": error.reason, "message": error.message}, error)


def unknown(error: BackendError) -> Outcome:
    """The request may have landed or may land yet."""
    return Outcome(Result.UNKNOWN, {"reason": error.reason, "message": error.message}, error)


class Fence(Protocol):
    """Guards the effects of one batch; see the controller for why a committed intent alone isn't enough."""

    @property
    def token(self) -> tuple[int, int]:
        """(offset of the owner's ShardTaken, number of the batch): rises for ever; for backends that can compare."""

    def check(self) -> None:
        """Raise `NotSent` once the batch may no longer begin. Call it directly before the write, with no await between."""

    def still_ours(self) -> None:
        """Raise `NotSent` once the shard is lost: for the later writes of an effect of many that began in time."""


# --- backends ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Measurement:
    """One sampled value; units last in `metric_type` (`used_memory_bytes`)."""

    metric_type: str
    value: float
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hint:
    """Something may have changed outside: look at this object, or at all of the target when None."""

    external: ExternalId | None
    reason: str


@dataclass(frozen=True, slots=True)
class Discovered:
    """One object that exists, as a declaration that converges without a single write."""

    name: str
    """Of the setting. What the object itself is called stands in `value` where the two differ: see `discovery.setting_name`."""
    value: Mapping[str, Any]
    """As in a declaration, JSON; without its `target`, which the caller adds."""
    fill_in: Mapping[str, str] = field(default_factory=dict)
    """JSON pointer into the value → what a person puts there: secrets can't be read, a declaration names where they are.
    Left out of the value where the object converges without it; else the value holds a reference that stands for it."""
    undeclarable: str | None = None
    """Why no declaration leaves it as it is: there is no word for a property it has, the nodes differ."""


class Backend(Protocol):
    """One target: the only place with a client library. Every call is bounded by the controller's deadlines."""

    @property
    def incarnation(self) -> str | None:
        """Run id of the server(s); a change means that what was applied at run time may be gone. None: not known yet."""

    def unsupported(self, setting_type: str) -> str | None:
        """Why this server can't hold objects of the kind; None when it can."""

    async def observe(self, wanted: Mapping[ExternalId, Any]) -> Mapping[ExternalId, Any]:
        """What is there, for the ids given. A missing key is absent.

        `wanted` maps each id to its desired value (None when it is retired), so that the server can canonicalise it.
        Reads only, but for scratch objects where the server is the canonicaliser. Raises `Unreachable`; a value may
        also be a `BackendError` for one object that couldn't be observed by itself.
        """

    async def apply(self, steps: Sequence[Step], fence: Fence) -> Sequence[Outcome]:
        """Carry out independent steps of different objects; outcomes in the same order.

        Calls `fence.check()` directly before each write. Errors of single steps are outcomes; raises `Unreachable` only
        when certainly nothing was sent.
        """

    async def discover(self, setting_type: str, match: str) -> Sequence[Discovered]:
        """What exists of a kind, by names in the backend that match a glob (`discovery.matches`). Reads only.

        What the server has for itself (its own users, internal topics) and what the daemon made for itself is left out,
        unless `match` is its very name. Of a kind that nobody but the daemon makes there is nothing to discover. Raises
        `Unreachable` and, when it is forbidden to look, `TerminalError`.
        """

    async def sample(self) -> Sequence[Measurement]:
        """Monitoring values of the target."""

    def hints(self) -> AsyncIterator[Hint]:
        """Runs as long as the backend is open; ends or raises when the connection does."""

    async def close(self) -> None:
        """Release connections; safe to call twice."""


@dataclass(frozen=True, slots=True)
class Affected:
    """How much of what people have is touched by a step: its blast radius."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """`{"messages": 1204, "partitions": 3}`; bytes end in `_bytes`. Empty: nothing is told."""
    at_least: bool = False
    """It was only counted up to a bound."""


NOTHING_TOLD = Affected()


@runtime_checkable
class Weighing(Protocol):
    """A backend that can tell how much a step would touch."""

    async def weigh(self, steps: Sequence[Step]) -> Sequence[Affected]:
        """Of each step, in the same order. Asked for plans alone, never on the way to an effect, and bounded in time:
        `NOTHING_TOLD` where it can't be told cheaply. Reads only. Raises `BackendError`."""


class Secrets(Protocol):
    """The daemon's secret port, handed to backends only."""

    def reveal(self, reference: SecretRef) -> str:
        """The secret; raises `SecretNotFound`."""

    def fingerprint(self, text: str) -> str:
        """Keyed digest, the only form of a secret that planners, steps, events and statuses see."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What a backend is opened with."""

    tenant: str
    target: str
    value: Any
    """The target's value model."""
    secrets: Secrets
    reserved: frozenset[str] = frozenset()
    """Names of what the control plane keeps for itself in backends that it may be asked to drive: topics of its own log,
    the user that it logs in as there. Nothing is done to them."""


# --- the spec of a service ---------------------------------------------------------------------------------------------

ValueT = TypeVar("ValueT", bound=BaseModel)
DesiredT = TypeVar("DesiredT")
ObservedT = TypeVar("ObservedT")


def target_field(value: Any) -> str:
    """The usual place of the target: the value's `target`."""
    return str(value.target)


def recall_nothing(observed: Any, _remembered: Mapping[str, str]) -> Any:
    """What the backend shows is enough."""
    return observed


def follows_nothing(_setting: str, _value: Any) -> Sequence[str]:
    """No order."""
    return ()


def requires_nothing(_value: Any) -> Sequence[str]:
    """No implied dependency."""
    return ()


def no_parts(_name: str, _value: Any) -> Sequence[ExternalId]:
    """It owns its one object."""
    return ()


class Trespass(NamedTuple):
    """Something that would reach beyond a tenant's prefix on a shared target: where in the value, and what to do."""

    path: str
    message: str


@dataclass(frozen=True, slots=True)
class Kind(Generic[ValueT, DesiredT, ObservedT]):
    """One kind of setting: how its value becomes a desired object, which one, and how to get there. All pure."""

    setting_type: str
    value: type[ValueT]
    """Fields that are owned as empty when they are left out stand in its class variable `always_owned`; where its target
    stands, unless in `target`, in `placed_by`: what is there can't be changed."""
    identify: Callable[[str, ValueT], str]
    """(name of the setting, value) → name of the object in the backend; deterministic."""
    desired: Callable[[str, ValueT], DesiredT]
    """(name of the setting, value) → canonical desired object."""
    plan: Callable[[ExternalId, DesiredT | None, ObservedT | None, Instant], Plan]
    """desired None = retire, observed None = absent."""
    target: Callable[[ValueT], str] = target_field
    requires: Callable[[ValueT], Sequence[str]] = requires_nothing
    """What it stands on by what its value names, as `type/name`; the target is implied anyway. A name is that of the object
    or of its setting; what isn't declared isn't waited for, since the object may be there all the same (targets are)."""
    follows: Callable[[str, ValueT], Sequence[str]] = follows_nothing
    """(name of the setting, value) → what only comes first when both are new, and goes last when both go, as the
    permissions of a user: `type/name` as in `requires`."""
    data_bearing: bool = False
    """Retiring keeps the backend object unless the policy says otherwise."""
    preexisting: bool = False
    """The object is there whether declared or not (a server's parameters): adoption is not asked."""
    parts: Callable[[str, ValueT], Sequence[ExternalId]] = no_parts
    """(name of the setting, value) → objects of other kinds on its target that it owns besides its own, as a user its
    permissions: a setting for one of them alone is in conflict with it."""
    shares: Callable[[str, ValueT], Sequence[ExternalId]] = no_parts
    """(name of the setting, value) → what it holds together with other settings that share it. Whoever has it among its
    `parts` has it alone: the younger of the two is in conflict. The names needn't be those of objects."""
    per_target: bool = False
    """Targets that lead to the same place hold different objects of this name."""
    named_by: str | None = None
    """Field of the value that names the object where it isn't called as its setting is."""
    belongs: Callable[[str, str], bool] = str.startswith
    """(name of an object, prefix) → is it among the names that begin with the prefix?"""
    confine: Callable[[ValueT, str], Sequence[Trespass]] | None = None
    """(value, prefix) → what in the value would reach objects on the target whose names don't begin with the prefix, its
    own name aside. None: it can't be told, so such an object needs a target that its tenant has for itself."""
    recall: Callable[[ObservedT | None, Mapping[str, str]], ObservedT | None] = recall_nothing
    """Completes an observation by what the status remembers, for what no backend shows: of a password the fingerprint that
    was written last, of an object the id that it had. What is remembered comes from `Outcome.remember` and `Plan.remember`;
    nothing is remembered when the effect's outcome is unknown, so the planner must be content without."""


class OperationContext(Protocol):
    """What an operation may use."""

    @property
    def tenant(self) -> str:
        """Whose operation it is."""

    @property
    def revision(self) -> int:
        """Place of this operation's OperationStarted in the journal of its shard, + 1: later operations have higher ones."""

    def setting(self, setting_type: str, name: str) -> Any:
        """The value model of a declared setting; raises `TerminalError` SettingNotFound."""

    def settings(self, setting_type: str) -> Mapping[str, Any]:
        """Name → value model of all settings of a type that the tenant declares; raises `TerminalError` for one that can't be
        understood, because what it would say isn't known."""

    async def backend(self, target: str) -> Any:
        """The open backend of a target of the same service; raises `Unreachable`."""

    def prefix(self, target: str) -> str:
        """What names of objects on a target begin with: nothing on one's own. Raises `TerminalError` NotShared."""

    def allowed(self, target: str, external: ExternalId) -> frozenset[str] | None:
        """The irreversible steps that the declaration of an object permits, whoever's it is. None: it isn't declared."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A one-shot request. Its events are the daemon's affair."""

    name: str
    """`invalidate` in `cache.invalidate`."""
    request: type[BaseModel]
    target: Callable[[OperationContext, Any], str]
    """Which target's shard it runs under."""
    run: Callable[[OperationContext, Any], Awaitable[dict[str, Any]]]
    effect: bool = True
    """False for operations that only read: they leave no events."""
    confined: bool = False
    """It reaches no further than the setting that it is about is confined to, or `OperationContext.prefix` says: it may run on
    a target of another tenant."""
    announce: Callable[[Any], dict[str, Any]] = lambda request: request.model_dump(mode="json", exclude_none=True)
    """The request as it stands in the events' details; must not hold a secret."""
    record: Callable[[dict[str, Any]], dict[str, Any]] = lambda result: result
    """The result as it stands in the event of its end, where the whole answer is too long for that."""


# --- streams -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """Something of a target is read, written or removed as a stream. HTTP's words, and its meaning, without its library."""

    method: str
    """GET, HEAD, PUT, DELETE; or POST: the answer may begin while the body still arrives."""
    path: str
    """What follows the target, decoded."""
    headers: Mapping[str, str]
    """By their names in lower case."""
    version: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further query parameters."""
    body: AsyncIterator[bytes] | None = None
    """It may end with an error: then nothing of it may stay."""
    size_bytes: int | None = None
    """Of the body, when that is known before."""


@dataclass(frozen=True, slots=True)
class StreamAnswer:
    """What is answered, while its context is open."""

    status: int
    headers: Mapping[str, str]
    body: AsyncIterator[bytes] | None = None


class Streamed(Protocol):
    """A backend whose contents can be streamed.

    Errors are those of every backend; of their reasons NotFound, PreconditionFailed, RangeNotSatisfiable and Forbidden are
    told as HTTP has them.
    """

    def stream(self, request: StreamRequest) -> AbstractAsyncContextManager[StreamAnswer]:
        """Serve one request, with memory that doesn't grow with what is streamed."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an analysis is computed from: plain maps as the query API answers them, oldest first."""

    since: Instant
    until: Instant
    metrics: Sequence[Mapping[str, Any]]
    events: Sequence[Mapping[str, Any]]
    settings: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class FileFormat:
    """A kind of file that people have of a backend's objects, read as declarations. Pure."""

    name: str
    """`redis_acl`: what a request to import calls it."""
    recognises: Callable[[str], bool]
    """Is the text such a file? Cheap, and false for files of other formats."""
    read: Callable[[str, str], Sequence[tuple[str, Discovered]]]
    """(text, name of the file without its suffix) → (setting type, object), in the order of the file. Raises ValueError with
    the place and what is wrong there."""


@dataclass(frozen=True, slots=True)
class Companion:
    """Something with a life of its own that every replica runs for each target that has settings of the kinds."""

    kinds: frozenset[str]
    run: Callable[[Connection], Awaitable[None]]
    """Until it is cancelled. Raises `BackendError` or `SecretNotFound`; it is started again then, after a pause."""


@dataclass(frozen=True, slots=True)
class Service:
    """The whole of a service as the daemon knows it. One line in `registry.SERVICES`."""

    name: str
    kinds: tuple[Kind[Any, Any, Any], ...]
    target: type[BaseModel] | None
    """Value model of `{name}.target`. None: the daemon itself is where its settings are carried out, always there."""
    connect: Callable[[Connection], Awaitable[Backend]]
    """Open a backend; raises `Unreachable`, `TerminalError` (wrong credentials), `SecretNotFound`."""
    operations: tuple[Operation, ...] = ()
    """One called `advise` that takes `{target}` and answers `{advice: [{index?, about, advice, evidence}]}` is asked by
    `coreplane doctor`; what `analyse` advises about the same isn't repeated there."""
    analyse: Callable[[Evidence], dict[str, Any]] | None = None
    companion: Companion | None = None
    formats: tuple[FileFormat, ...] = ()
    places: Callable[[Any], Hashable] | None = None
    """(target's value) → where it is, in one spelling: targets of equal places are one backend, whoever declares them."""
    identified: bool = False
    """The incarnation of a backend is the identity of the server, however it is reached: targets of equal ones are one backend,
    too."""
    streams: str | None = None
    """What its backends stream, as it stands in paths (`objects`): they are `Streamed`. None: nothing."""
    streams_confined: bool = False
    """A stream reaches no further than what its path begins with: it may be of a target of another tenant."""
    sweep_s: float = 60.0
    sample_s: float = 15.0
    observe_timeout_s: float = 10.0
    effect_timeout_s: float = 10.0
    landing_s: float = 5.0
    """Longest time the server may take to land a request after the client stopped waiting for it."""
    batch: int = 250
    """Most keys in one observe-plan-apply pass."""

    @property
    def target_type(self) -> str:
        """`cache.target`."""
        return f"{self.name}.target"

"""Import: what exists in a backend, or stands in a file that people have, as declarations. Nothing is stored.

Theory of operation. The open backend of the target says what exists; what is declared already is set apart, and every other
object becomes a declaration with a name that is free. These are then foreseen as if they were applied: a declaration that
would take a step isn't what exists, and is left out with the reason. So what is answered converges without a write, as far
as can be seen before its secrets are filled in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from controlplane.domain import writes
from controlplane.domain.errors import Elsewhere, Fault, Reason, Refused
from controlplane.domain.fold import State
from controlplane.runtime.catalogue import Catalogue, Resolved, TargetId
from controlplane.runtime.clock import Clock
from controlplane.runtime.foreseen import Foreseen
from controlplane.runtime.imported import Imported, Known, Skipped, imported, selected
from controlplane.runtime.preview import Links, Preview, Proposal
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import Backend, BackendError, Discovered, FileFormat, Kind, Unreachable
from schemas.names import timestamp

_log = structlog.get_logger()

MOST: Final = 5_000
"""Objects in one answer."""
TIMEOUT_S: Final = 30.0
"""To list what exists."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to import from a backend."""

    tenant: str
    setting_type: str
    target: str
    match: str = "*"


@dataclass(frozen=True, slots=True)
class Text:
    """A file to import. `file_format` None: whichever recognises it."""

    tenant: str
    target: str
    text: str
    file_format: str | None = None
    name: str = ""
    """Of the file, without its suffix: some formats don't say what the object is called."""


class Importing:
    """Answers imports."""

    def __init__(
        self, state: State, catalogue: Catalogue, links: Links, preview: Preview, *, clock: Clock, metrics: Metrics
    ) -> None:
        self._state = state
        self._catalogue = catalogue
        self._links = links
        self._preview = preview
        self._clock = clock
        self._metrics = metrics
        self._kinds = {kind.setting_type: kind for s in catalogue.services.values() for kind in s.kinds}

    async def from_backend(self, wish: Wish) -> Imported:
        """What exists there. Raises `Refused`."""
        kind = self._kind(wish.setting_type)
        backend = self._backend(wish)
        objects = await self._discovered(backend, wish)
        if len(objects) > MOST:
            message = f"means {len(objects)} objects, {MOST} at most are answered: narrow it"
            raise Refused(Reason.INVALID, f"match {message}", [Fault("/match", message)])
        found = imported(selected(objects, kind), self._known(wish.tenant, wish.setting_type, wish.target))
        if found.declarations:
            await self._prove(found, wish.tenant)
        return found

    async def from_file(self, file: Text) -> Imported:
        """What the file says. Raises `Refused` (Invalid)."""
        chosen = self._format(file)
        try:
            rows = await asyncio.to_thread(chosen.read, file.text, file.name)
        except ValueError as exc:
            raise Refused(Reason.INVALID, f"{chosen.name}: {exc}", [Fault("/text", str(exc))]) from exc
        except Exception as exc:
            self._metrics.bug("import")
            _log.exception("import failed", format=chosen.name)
            message = "can't be read: it isn't as files of the format are"
            raise Refused(Reason.INVALID, f"{chosen.name}: {message}", [Fault("/text", message)]) from exc
        service = next(s.name for s in self._catalogue.services.values() if chosen in s.formats)
        found = [(self._kinds[setting_type], one) for setting_type, one in rows if setting_type in self._kinds]
        answer = imported(found, self._known(file.tenant, f"{service}.", file.target))
        unknown = [(setting_type, one) for setting_type, one in rows if setting_type not in self._kinds]
        answer.skipped += [Skipped(t, one.name, f"this daemon doesn't know {t}") for t, one in unknown]
        return answer

    def formats(self) -> list[str]:
        """Names of the formats there are."""
        return sorted(one.name for service in self._catalogue.services.values() for one in service.formats)

    # --- what is asked -------------------------------------------------------------------------------------------------

    def _kind(self, setting_type: str) -> Kind[Any, Any, Any]:
        kind = self._kinds.get(setting_type)
        if kind is None:
            message = f"can't be imported; these can: {', '.join(sorted(self._kinds))}"
            raise Refused(Reason.INVALID, f"{setting_type} {message}", [Fault("/type", message)])
        return kind

    def _format(self, file: Text) -> FileFormat:
        formats = [one for service in self._catalogue.services.values() for one in service.formats]
        known = ", ".join(self.formats())
        if file.file_format is None:
            found = next((one for one in formats if one.recognises(file.text)), None)
            message = f"is of no format that is known: {known}"
        else:
            found = next((one for one in formats if one.name == file.file_format), None)
            message = f"isn't known; these are: {known}"
        if found is None:
            field = "text" if file.file_format is None else "format"
            raise Refused(Reason.INVALID, f"the {field} {message}", [Fault(f"/{field}", message)])
        return found

    def _backend(self, wish: Wish) -> Backend:
        target = TargetId(wish.tenant, wish.setting_type.partition(".")[0], wish.target)
        link = self._links.loop(target)
        reference = target.key.partition("/")[2]
        if target.key not in self._state.entries:
            message = f"there is no {reference}: declare it first"
            raise Refused(Reason.NOT_FOUND, message, [Fault("/target", message)])
        if (shard := self._links.elsewhere(target)) is not None:
            raise Elsewhere(shard, reference)
        if link is None or link.backend is None:
            why = "is not connected" if link is None or link.down is None else link.down.message
            raise Refused(Reason.BACKEND_UNREACHABLE, f"{reference}: {why}", retry_after_s=1.0)
        unsupported = link.backend.unsupported(wish.setting_type)
        if unsupported is not None:
            raise Refused(Reason.INVALID, unsupported, [Fault("/target", unsupported)])
        return link.backend

    def _known(self, tenant: str, prefix: str, target: str) -> Known:
        """What is declared of the types that begin with the prefix."""
        owners, keys = {}, set()
        for key, entry in self._state.entries.items():
            if not key.startswith(f"{tenant}/{prefix}"):
                continue
            keys.add(key)
            resolved = self._catalogue.resolve(entry)
            if isinstance(resolved, Resolved) and resolved.target.target == target:
                owners[resolved.external] = key
        return Known(tenant, target, owners, keys)

    # --- what exists ---------------------------------------------------------------------------------------------------

    async def _discovered(self, backend: Backend, wish: Wish) -> Sequence[Discovered]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await backend.discover(wish.setting_type, wish.match)
        except TimeoutError as exc:
            raise Refused(Reason.BACKEND_UNREACHABLE, f"no answer within {TIMEOUT_S:g} s", retry_after_s=1.0) from exc
        except Unreachable as exc:
            raise Refused(Reason.BACKEND_UNREACHABLE, exc.message, retry_after_s=1.0) from exc
        except BackendError as exc:
            raise Refused(Reason.OPERATION_FAILED, f"{wish.setting_type}: {exc.message}") from exc
        except Exception as exc:
            self._metrics.bug("discover")
            _log.exception("discover failed", setting_type=wish.setting_type)
            raise Refused(Reason.INTERNAL, f"discover: {exc!r}") from exc

    async def _prove(self, found: Imported, tenant: str) -> None:
        """Leave out what would take a step, or be refused, if it were applied."""
        declarations = list(found.declarations.values())
        changes = writes.declare_all(tenant, declarations, self._state.entries, self._catalogue.value_models())
        record = {"at": timestamp(self._clock.now()), "actor": "import", "reason": "", "request_id": "import"}
        foreseen = await self._preview.foresee(Proposal(tenant, changes, None, record))
        open_ones = {one.key for one in found.fill_in}
        for one in foreseen.settings:
            why = _why_not(one)
            if why is not None and (one.steps or one.trial.key not in open_ones):
                found.drop(one.trial.key, why)


def _why_not(one: Foreseen) -> str | None:
    if one.steps:
        paths = ", ".join(dict.fromkeys(difference.path for difference in one.differences))
        return f"declared like this it would be changed: {one.steps[0].summary()}{f' ({paths})' if paths else ''}"
    why = one.refused or one.unknown
    return None if why is None else f"{why.reason}: {why.message}"

"""The service `access`: tokens, tenants and shares, as the controller sees them.

They have no backend. Each replica carries them out by itself, the moment it folds them (`directory`); what is left for the
controller is what every setting gets: a status, events, and to leave the state when it is retired. So the backend here is
the daemon, which holds whatever is declared and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from reconcilers.contract import (
    CONVERGED,
    Connection,
    Discovered,
    ExternalId,
    Fence,
    Hint,
    Kind,
    Measurement,
    Outcome,
    Service,
    Step,
)
from schemas.access import ACCESS_KINDS
from schemas.names import ACCESS

_SWEEP_S: Final = 3600.0
"""Nothing changes by itself."""


class Daemon:
    """Holds what is declared, by being told."""

    incarnation: str | None = None

    def unsupported(self, _setting_type: str) -> str | None:
        """Every kind of it is."""
        return None

    async def observe(self, wanted: Mapping[ExternalId, Any]) -> Mapping[ExternalId, Any]:
        """All that is wanted is there, and what is retired isn't."""
        return {thing: desired for thing, desired in wanted.items() if desired is not None}

    async def apply(self, _steps: Sequence[Step], _fence: Fence) -> Sequence[Outcome]:
        """There are no steps."""
        return ()

    async def discover(self, _setting_type: str, _match: str) -> Sequence[Discovered]:
        """Nothing exists that isn't declared."""
        return ()

    async def sample(self) -> Sequence[Measurement]:
        """Nothing that the daemon's own metrics don't say."""
        return ()

    async def hints(self) -> AsyncIterator[Hint]:
        """None, and it never ends."""
        await asyncio.Event().wait()
        yield Hint(None, "")

    async def close(self) -> None:
        """There is nothing to release."""


async def _connect(_connection: Connection) -> Daemon:
    return Daemon()


SERVICE: Final = Service(
    name=ACCESS,
    kinds=tuple(
        Kind(
            setting_type,
            model,
            identify=lambda name, _value: name,
            desired=lambda _name, value: value,
            plan=lambda _thing, _desired, _observed, _now: CONVERGED,
            target=lambda _value: ACCESS,
            preexisting=True,
        )
        for setting_type, model in ACCESS_KINDS.items()
    ),
    target=None,
    connect=_connect,
    sweep_s=_SWEEP_S,
    sample_s=_SWEEP_S,
)

OWN: Final = {SERVICE.name: SERVICE}
"""What the daemon serves by itself, beside the services of the registry."""

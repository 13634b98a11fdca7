"""Where targets lead: by what they declare, and by what the server said of itself when it was reached. Pure.

Note [One server, many names]. Two targets that name the same server by equal addresses are known to be one from the moment that
they are declared. By other addresses (another of its brokers, another name of the host) only the server can tell: who
connects keeps its identity in the target's status, so that every replica knows it. It is learnt of the address rather than of
the target: what is declared for the same address is foreseen right, and a target that is declared elsewhere isn't there yet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable
from typing import Final

from controlplane.domain.status import KeyStatus
from controlplane.runtime.catalogue import TargetId

IDENTITY: Final = "identity"
ADDRESS: Final = "address"


def told(address: Hashable, identity: str) -> tuple[tuple[str, str], ...]:
    """What the status of a target remembers of the server that was reached there."""
    return ((ADDRESS, _digest(address)), (IDENTITY, identity))


class Places:
    """Places are compared and nothing else."""

    def __init__(self) -> None:
        self._addresses: dict[TargetId, Hashable] = {}
        self._identities: dict[Hashable, Hashable] = {}
        """Address → which server is there."""

    def of(self, target: TargetId) -> Hashable:
        """Equal for targets that lead to one server, as far as that is known."""
        if target not in self._addresses:
            return target
        address = self._addresses[target]
        return self._identities.get(address, address)

    def learn(self, target: TargetId, address: Hashable, status: KeyStatus | None) -> Iterable[TargetId]:
        """The target is declared at an address and has this status; the targets that lead elsewhere by that."""
        before, known = self.of(target), self._identities.get(address)
        self._addresses[target] = address
        remembered = {} if status is None else dict(status.remembered)
        if remembered.get(ADDRESS) == _digest(address):
            self._identities[address] = (target.service, IDENTITY, remembered[IDENTITY])
        if self._identities.get(address) != known:
            return [one for one, declared in self._addresses.items() if declared == address]
        return [target] if self.of(target) != before else []


def _digest(address: Hashable) -> str:
    return hashlib.sha256(repr(address).encode()).hexdigest()[:16]

"""Conditional writes: `If-Match` and `If-None-Match` as the `expected` revision of a change."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from controlplane.domain.errors import Fault, Reason, Refused
from schemas.record import ABSENT

ANY: Final = "*"

_TAG = re.compile(r'\s*(?:(W/)?"([^"]*)"|(\d+))\s*(?:,|$)')


class Precondition(NamedTuple):
    """Revisions as text; `*` means any revision that exists. None: the header wasn't given."""

    match: frozenset[str] | None = None
    none_match: frozenset[str] | None = None

    @property
    def given(self) -> bool:
        """True when the writer said what it expects."""
        return self != UNCONDITIONAL


UNCONDITIONAL: Final = Precondition()


def etag(revision: int) -> str:
    """The entity tag of a revision, quotes included."""
    return f'"{revision}"'


def precondition(if_match: str | None, if_none_match: str | None) -> Precondition:
    """The two headers, parsed. Raises `Refused` (Malformed) for what isn't a list of entity tags."""
    return Precondition(_tags("If-Match", if_match), _tags("If-None-Match", if_none_match))


def expected(condition: Precondition, revision: int) -> int | None:
    """The `expected` of a change to a key that is at `revision` now (0: absent); None is any.

    Whatever is met now is pinned, so that the fold refuses the change when the key moves before it. Raises `Refused`
    (PreconditionFailed) when it isn't met now.
    """
    if condition.match is not None:
        if revision == ABSENT or not condition.match & {ANY, str(revision)}:
            raise failed(revision)
        return revision
    if condition.none_match is None:
        return None
    if revision != ABSENT and condition.none_match & {ANY, str(revision)}:
        raise failed(revision)
    return ABSENT if ANY in condition.none_match else revision


def failed(revision: int) -> Refused:
    """The refusal of a write whose precondition doesn't hold."""
    now = "the setting doesn't exist" if revision == ABSENT else f"the setting is at revision {revision}"
    fault = Fault("/revision", f"{now}; read it again and decide anew")
    return Refused(Reason.PRECONDITION_FAILED, f"precondition failed: {now}", [fault])


def _tags(header: str, text: str | None) -> frozenset[str] | None:
    """Weak tags never match a write (RFC 9110, strong comparison), so they are kept out of the set."""
    if text is None:
        return None
    if text.strip() == ANY:
        return frozenset({ANY})
    found, position = set(), 0
    while position < len(text):
        tag = _TAG.match(text, position)
        if tag is None:
            message = f'{header} is a list of quoted revisions or *, for example {header}: "42"'
            raise Refused(Reason.MALFORMED, message, [Fault(header, message)])
        if not tag[1]:
            found.add(tag[2] if tag[2] is not None else tag[3])
        position = tag.end()
    return frozenset(found)

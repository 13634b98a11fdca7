"""JSON merge patch (RFC 7396) of a declaration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.domain.validation import unstorable


def patched(body: Mapping[str, Any], patch: Any) -> dict[str, Any]:
    """The body (`value`, `labels`, `depends_on`, `policy`) with the patch merged in; neither argument is changed.

    The result still has to be validated. Raises `Refused` for a patch that isn't a map of JSON values: by the RFC, such a
    patch would replace the whole declaration.
    """
    if not isinstance(patch, Mapping):
        raise Refused(Reason.MALFORMED, "a merge patch of a declaration is a map", [Fault("", "must be a map")])
    faults = unstorable(patch)
    if faults:
        raise Refused(Reason.INVALID, "the patch can't be stored", faults)
    merged: dict[str, Any] = merge_patch(body, patch)
    return merged


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes, maps merge, everything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged

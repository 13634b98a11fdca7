"""Policy documents in canonical form. Pure.

MinIO answers a policy otherwise than it was sent: single values become lists, a principal `*` becomes `{"AWS": ["*"]}`,
duplicates vanish, statements that are equal but for their `Sid` become one, conditions are sorted and their values become
text, and the order of actions and resources changes from one answer to the next. So documents are compared as sets.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

VERSION: Final = "2012-10-17"
FIELDS: Final = ("Effect", "Principal", "Action", "NotAction", "Resource", "NotResource", "Condition")
ANYBODY: Final = {"AWS": ["*"]}


@dataclass(frozen=True, slots=True)
class Policy:
    """A document to which order and spelling don't matter. Equal policies permit the same."""

    statements: tuple[str, ...] = ()
    """Canonical JSON of each, sorted."""

    def document(self) -> dict[str, Any] | None:
        """As it is sent and shown; None when it permits nothing."""
        if not self.statements:
            return None
        return {"Version": VERSION, "Statement": [json.loads(statement) for statement in self.statements]}

    def text(self) -> str:
        """JSON of the document, empty when there is none."""
        document = self.document()
        return "" if document is None else json.dumps(document, separators=(",", ":"), sort_keys=True)


NOTHING: Final = Policy()


def canonical(document: Mapping[str, Any] | None) -> Policy:
    """The document's canonical form."""
    statements = _listed((document or {}).get("Statement"))
    texts = {
        json.dumps(_statement(s), separators=(",", ":"), sort_keys=True) for s in statements if isinstance(s, dict)
    }
    return Policy(tuple(sorted(texts)))


def parsed(text: str | bytes | None) -> Policy:
    """The same from JSON, as the server holds it; nothing when there is none."""
    return canonical(json.loads(text)) if text and text.strip() else NOTHING


def public(bucket: str, *, write: bool) -> Policy:
    """Anybody may list and read, and perhaps write, the bucket."""
    on_bucket = ["s3:GetBucketLocation", "s3:ListBucket"] + (["s3:ListBucketMultipartUploads"] if write else [])
    on_objects = ["s3:GetObject"]
    if write:
        on_objects += ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:ListMultipartUploadParts", "s3:PutObject"]
    arn = f"arn:aws:s3:::{bucket}"
    rows = [(on_bucket, arn), (on_objects, f"{arn}/*")]
    return canonical(
        {
            "Version": VERSION,
            "Statement": [
                {"Effect": "Allow", "Principal": "*", "Action": actions, "Resource": [resource]}
                for actions, resource in rows
            ],
        }
    )


def frozen(bucket: str) -> Policy:
    """Nobody who isn't logged in may do anything to the bucket."""
    statement = {"Effect": "Deny", "Principal": "*", "Action": ["s3:*"], "Resource": [f"arn:aws:s3:::{bucket}/*"]}
    return canonical({"Version": VERSION, "Statement": [statement]})


def opens(policy: Policy) -> bool:
    """Somebody may do something without logging in."""
    return any(
        statement["Effect"] == "Allow" and "*" in statement.get("Principal", {}).get("AWS", ())
        for statement in map(json.loads, policy.statements)
    )


def _statement(statement: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in FIELDS:
        value = statement.get(field)
        if value in (None, [], {}, ""):
            continue
        if field == "Effect":
            found[field] = value
        elif field == "Principal":
            found[field] = _principal(value)
        elif field == "Condition":
            found[field] = _condition(value)
        else:
            found[field] = _sorted(value)
    return found


def _principal(value: Any) -> Any:
    if value == "*":
        return ANYBODY
    return {kind: _sorted(names) for kind, names in sorted(value.items())} if isinstance(value, Mapping) else value


def _condition(condition: Any) -> Any:
    if not isinstance(condition, Mapping):
        return condition
    return {
        operator: {key: sorted(_text(value) for value in _listed(values)) for key, values in sorted(keys.items())}
        for operator, keys in sorted(condition.items())
        if isinstance(keys, Mapping)
    }


def _sorted(value: Any) -> list[str]:
    return sorted({str(one) for one in _listed(value)})


def _listed(value: Any) -> Sequence[Any]:
    if value is None:
        return []
    return value if isinstance(value, list | tuple) else [value]


def _text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)

"""What can be done to buckets. Values; no step holds a secret. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reconcilers.contract import Step
from reconcilers.storage.lifecycle import Expiring
from reconcilers.storage.model import Retention, Versioning
from reconcilers.storage.policies import Policy
from reconcilers.storage.replication import Place
from schemas.secret import SecretRef


@dataclass(frozen=True, slots=True)
class CreateBucket(Step):
    """Make the bucket."""

    object_lock: bool = False

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "object_lock": self.object_lock}


@dataclass(frozen=True, slots=True)
class SetVersioning(Step):
    """Put the whole document: what is left out of it is dropped."""

    versioning: Versioning

    def summary(self) -> str:
        """See the contract."""
        return f"SetVersioning {self.external.name} {self.versioning.status}"

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, **self.versioning.shown()}


@dataclass(frozen=True, slots=True)
class SetRetention(Step):
    """Put the default retention."""

    retention: Retention

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, **self.retention.shown()}


@dataclass(frozen=True, slots=True)
class SetLifecycle(Step):
    """Put all rules of the bucket: ours as declared, those of others as they were found."""

    texts: tuple[str, ...]
    owned: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...] = ()
    expiring: tuple[tuple[str, Expiring], ...] = ()
    """What the changed rules would remove today."""

    def summary(self) -> str:
        """See the contract."""
        expiring = dict(self.expiring)
        told = [
            f"{name} (removes {expiring[name].said()} today)" if name in expiring else name for name in self.changed
        ]
        told += [f"without {name}" for name in self.removed]
        return f"SetLifecycle {self.external.name}: {', '.join(told)}"

    def details(self) -> dict[str, Any]:
        """See the contract."""
        removes = {
            name: {"objects": found.objects, "size_bytes": found.size_bytes, "complete": found.complete}
            for name, found in self.expiring
        }
        rules = {
            "changed": list(self.changed),
            "removed": list(self.removed),
            "kept": len(self.texts) - len(self.changed),
        }
        return {"external": self.external.name, **rules, "expires_today": removes}


@dataclass(frozen=True, slots=True)
class SetEncryption(Step):
    """Encrypt new objects."""

    encryption: str

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "encryption": self.encryption}


@dataclass(frozen=True, slots=True)
class SetQuota(Step):
    """Refuse writes beyond so many bytes; 0: none."""

    quota_bytes: int

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "quota_bytes": self.quota_bytes}


@dataclass(frozen=True, slots=True)
class SetTags(Step):
    """Put all tags: ours as declared, those of others as they were found."""

    tags: tuple[tuple[str, str], ...]
    owned: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "tags": dict(self.tags)}


@dataclass(frozen=True, slots=True)
class SetAccess(Step):
    """Put or remove the bucket policy."""

    policy: Policy

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "policy": self.policy.document()}


@dataclass(frozen=True, slots=True)
class SetNotifications(Step):
    """Put all notifications: ours as declared, those of others as they were found."""

    texts: tuple[str, ...]
    owned: tuple[str, ...]

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "owned": list(self.owned), "all": len(self.texts)}


@dataclass(frozen=True, slots=True)
class PutRemote(Step):
    """Tell the server of a bucket elsewhere, or log in there otherwise. It tries the login before it agrees."""

    place: Place
    access_key: SecretRef
    secret_key: SecretRef
    arn: str = ""
    """Of the one that is there already."""

    def summary(self) -> str:
        """See the contract."""
        return f"PutRemote {self.external.name} → {'/'.join(self.place)}"

    def details(self) -> dict[str, Any]:
        """See the contract."""
        login = {"access_key": str(self.access_key), "secret_key": str(self.secret_key)}
        return {"external": self.external.name, "to": "/".join(self.place), **login}


@dataclass(frozen=True, slots=True)
class SetReplication(Step):
    """Put all rules of the bucket: ours as declared, those of others as they were found."""

    texts: tuple[str, ...]
    owned: tuple[str, ...]
    remotes: tuple[str, ...]
    """ARNs of ours."""

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "owned": list(self.owned), "all": len(self.texts)}


@dataclass(frozen=True, slots=True)
class DropRemote(Step):
    """Let the server forget a bucket elsewhere that no rule names any more."""

    arn: str

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "arn": self.arn}


@dataclass(frozen=True, slots=True)
class FreezeBucket(Step):
    """Let nobody write into a bucket that is to go: a quota of one byte, and a policy that lets nobody in."""


@dataclass(frozen=True, slots=True)
class EmptyBucket(Step, irreversible=True):
    """Remove versions in batches, for some seconds. `first`: key and version where it begins, so that each is a step of
    its own."""

    first: tuple[str, str]

    def details(self) -> dict[str, Any]:
        """See the contract."""
        return {"external": self.external.name, "first": self.first[0]}


@dataclass(frozen=True, slots=True)
class DropBucket(Step):
    """Remove the empty bucket."""

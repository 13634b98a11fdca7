"""What a declaration stands on by the names in it, and how far it reaches on a server that tenants share. Pure.

Confined: names begin with the prefix, policies permit S3 calls on buckets under it and nothing else, users and groups get
policies under it only. What a bucket has the server do elsewhere (replicate, encrypt by a key, notify somebody) reaches
beyond, unless the key or the receiver is called by the prefix too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from reconcilers.contract import Trespass
from reconcilers.manifests import listed
from reconcilers.storage import logins, parameters
from schemas.storage import AccessKey, Bucket, Group, KmsEncryption, Policy, User

ARN: Final = "arn:aws:s3:::"


# --- what it stands on -------------------------------------------------------------------------------------------------


def bucket_requires(value: Bucket) -> Sequence[str]:
    """The server's parameters that name who is notified: `arn:minio:sqs::NAME:webhook` is `notify_webhook:NAME`."""
    found = [one.arn.split(":") for one in value.notifications or ()]
    return [f"{parameters.SERVER_CONFIG}/notify_{parts[-1]}:{parts[-2]}" for parts in found]


def user_requires(value: User) -> Sequence[str]:
    """The policies and groups that it is to have."""
    return [*_named(logins.POLICY, value.policies), *_named(logins.GROUP, value.groups)]


def group_requires(value: Group) -> Sequence[str]:
    """Its policies. Not its members: they may name the group, too, and are waited for by the plan."""
    return _named(logins.POLICY, value.policies)


def key_requires(value: AccessKey) -> Sequence[str]:
    """Its user."""
    return _named(logins.USER, [value.user])


def _named(setting_type: str, names: Iterable[str] | None) -> list[str]:
    return [f"{setting_type}/{name}" for name in names or ()]


# --- how far it reaches ------------------------------------------------------------------------------------------------


def confine_bucket(value: Bucket, prefix: str) -> list[Trespass]:
    """What the bucket would have the server do elsewhere. Its own policy is of itself: the server sees to that."""
    found = [
        Trespass(f"/notifications/{index}/arn", f"must name a receiver that begins with {prefix}")
        for index, one in enumerate(value.notifications or ())
        if not one.arn.split(":")[-2].startswith(prefix)
    ]
    if isinstance(value.encryption, KmsEncryption) and not value.encryption.kms_key.startswith(prefix):
        found.append(Trespass("/encryption/kms_key", f"must begin with {prefix}"))
    if value.replication:
        found.append(Trespass("/replication", "can't be confined: the server would reach out as it is told"))
    return found


def confine_policy(value: Policy, prefix: str) -> list[Trespass]:
    """What it permits beyond S3 calls on buckets under the prefix. What it denies reaches nowhere."""
    return list(_beyond(value.document, prefix))


def confine_user(value: User, prefix: str) -> list[Trespass]:
    """Policies and groups of others, whose rights it would get."""
    return _foreign(prefix, policies=value.policies, groups=value.groups)


def confine_group(value: Group, prefix: str) -> list[Trespass]:
    """Users and policies of others."""
    return _foreign(prefix, members=value.members, policies=value.policies)


def confine_key(value: AccessKey, prefix: str) -> list[Trespass]:
    """The user of others, whose rights it would have. A policy of its own only takes rights away."""
    return [] if value.user.startswith(prefix) else [Trespass("/user", f"must begin with {prefix}")]


def _foreign(prefix: str, **fields: Sequence[str] | None) -> list[Trespass]:
    return [
        Trespass(f"/{field}/{index}", f"must begin with {prefix}")
        for field, names in fields.items()
        for index, name in enumerate(names or ())
        if not name.startswith(prefix)
    ]


def _beyond(document: Mapping[str, Any], prefix: str) -> Iterator[Trespass]:
    statements = listed(document.get("Statement"))
    for index, statement in enumerate(statements):
        if statement.get("Effect") == "Deny":
            continue
        path = f"/document/Statement/{index}"
        for field in ("NotAction", "NotResource"):
            if field in statement:
                yield Trespass(f"{path}/{field}", "permits all the rest: name what is permitted")
        if not all(str(action).startswith("s3:") for action in listed(statement.get("Action"))):
            yield Trespass(f"{path}/Action", "must be calls of S3, as in s3:GetObject")
        resources = listed(statement.get("Resource"))
        if not resources or not all(str(one).startswith(ARN + prefix) for one in resources):
            yield Trespass(f"{path}/Resource", f"must begin with {ARN}{prefix}")

"""Buckets of a server: observed all at once, changed one call at a time each. I/O.

With the admin API one export holds every document of every bucket; what hasn't changed since the last look, by the
checksums in the export's directory, isn't parsed again. Without it each document that is declared is asked for.

Note [One call at a time]. MinIO reads a bucket's documents, changes one and writes them all. Two calls at once for one
bucket are both acknowledged, and one of them is lost: of 100 buckets that got versioning, lifecycle and policy at once 20
had no versioning afterwards, 31 no lifecycle, 24 no policy. So a bucket has a lock here, and the controller looks again.

Note [A server that starts makes buckets]. While it starts, MinIO goes through the buckets that it found and makes those that are
missing, for a disk that was replaced. One that is dropped meanwhile comes back, empty and bare, some milliseconds after the
answer. So none is dropped before that is over.
"""

from __future__ import annotations

import asyncio
import io
import json
import xml.etree.ElementTree as ET
import zipfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from reconcilers.contract import (
    BackendError,
    Fence,
    Outcome,
    Result,
    SecretNotFound,
    Secrets,
    TerminalError,
    TransientError,
)
from reconcilers.storage import lifecycle, listing, model, policies, replication
from reconcilers.storage.model import FROZEN_BYTES, Bucket, Contents, HeldBucket, Versioning
from reconcilers.storage.replication import Wanted
from reconcilers.storage.s3 import Refused, Request, S3Client, bucket_path
from reconcilers.storage.steps import (
    CreateBucket,
    DropBucket,
    DropRemote,
    EmptyBucket,
    FreezeBucket,
    PutRemote,
    SetAccess,
    SetEncryption,
    SetLifecycle,
    SetNotifications,
    SetQuota,
    SetReplication,
    SetRetention,
    SetTags,
    SetVersioning,
)
from schemas.secret import SecretRef

EXPORT: Final = "export-bucket-metadata"
SINGLE: Final = 16
"""Up to so many buckets are asked for one by one (1 ms each), more by one export of all."""
EXPORT_S: Final = 30.0
STARTING_S: Final = 3.0
"""A MinIO that runs for so long, whole seconds as it tells, has gone through its buckets."""
DOCUMENTS: Final[Mapping[str, tuple[str, str]]] = {
    "versioning": ("versioning", "versioning.xml"),
    "object_lock": ("object-lock", "object-lock.xml"),
    "retention": ("object-lock", "object-lock.xml"),
    "rules": ("lifecycle", "lifecycle.xml"),
    "encryption": ("encryption", "bucket-encryption.xml"),
    "tags": ("tagging", "tagging.xml"),
    "access": ("policy", "policy.json"),
    "notifications": ("notification", "notification.xml"),
    "replication": ("replication", "replication.xml"),
}
"""What is declared → the request for it, and its name in the export."""
ABSENT: Final = frozenset(
    {
        "NoSuchBucketPolicy",
        "NoSuchLifecycleConfiguration",
        "NoSuchTagSet",
        "NoSuchCORSConfiguration",
        "ReplicationConfigurationNotFoundError",
        "ServerSideEncryptionConfigurationNotFoundError",
        "ObjectLockConfigurationNotFoundError",
        "NotImplemented",
        "MethodNotAllowed",
    }
)
"""Not configured, or never heard of: the same for what is declared."""
EVERYTHING: Final = Bucket(
    "",
    versioning=Versioning(),
    object_lock=True,
    rules=(),
    encryption="",
    tags=(),
    access=policies.NOTHING,
    notifications=(),
)
"""A declaration for which every document is looked at."""
GONE: Final = ("NoSuchBucket", "NotFound")

Seen = HeldBucket | BackendError
_Print = tuple[tuple[str, int, int], ...]
"""(document, checksum, size) of all documents of a bucket."""


class Buckets:
    """The buckets of one server. `export` False: we may not use the admin API for them."""

    def __init__(self, client: S3Client, secrets: Secrets) -> None:
        self._client = client
        self._secrets = secrets
        self._known: dict[str, tuple[_Print, HeldBucket]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.export = False

    async def detect(self) -> None:
        """See whether we may export. Raises `Refused` only for a login that is refused altogether."""
        try:
            await self._client.admin("GET", EXPORT, {"bucket": "coreplane-no-such-bucket"})
        except Refused as exc:
            self.export = exc.code == "NoSuchBucket"
            return
        self.export = True

    def seen(self) -> list[tuple[str, HeldBucket]]:
        """Those that were looked at, as they were found last."""
        return [(name, held) for name, (_, held) in self._known.items()]

    async def all(self) -> dict[str, Seen]:
        """Every bucket there is, with every document."""
        root = lifecycle.plain(ET.fromstring(await self._client.get("/")))  # noqa: S314 - of the server we administer
        names = [element.text or "" for element in root.iterfind("Buckets/Bucket/Name")]
        return await self.observe(dict.fromkeys(names, EVERYTHING))

    # --- observation ---------------------------------------------------------------------------------------------------

    async def observe(self, wanted: Mapping[str, Bucket | None]) -> dict[str, Seen]:
        """What is there; absent ones are missing."""
        if self.export and len(wanted) > SINGLE:
            found: dict[str, Seen] = await self._exported(wanted)
        else:
            look = self._exported_one if self.export else self._asked
            seen = await asyncio.gather(*(look(name, desired) for name, desired in wanted.items()))
            found = {name: one for name, one in zip(wanted, seen, strict=True) if one is not None}
        completed = await asyncio.gather(*(self._completed(name, wanted[name], seen) for name, seen in found.items()))
        return dict(zip(found, completed, strict=True))

    async def _exported(self, wanted: Mapping[str, Bucket | None]) -> dict[str, Seen]:
        reply = await self._client.call(Request("GET", f"/minio/admin/v3/{EXPORT}", timeout_s=EXPORT_S))
        return self._unpacked(reply.body, wanted)

    async def _exported_one(self, name: str, _desired: Bucket | None) -> Seen | None:
        try:
            body = await self._client.admin("GET", EXPORT, {"bucket": name})
        except Refused as exc:
            return None if exc.code in GONE else exc.translated(name)
        return self._unpacked(body, {name: None}).get(name)

    def _unpacked(self, body: bytes, wanted: Mapping[str, Any]) -> dict[str, Seen]:
        entries: dict[str, list[zipfile.ZipInfo]] = {}
        with zipfile.ZipFile(io.BytesIO(body)) as archive:
            for entry in archive.infolist():
                name = entry.filename.partition("/")[0]
                if name in wanted:
                    entries.setdefault(name, []).append(entry)
            return {name: self._held(archive, name, found) for name, found in entries.items()}

    def _held(self, archive: zipfile.ZipFile, name: str, entries: Sequence[zipfile.ZipInfo]) -> Seen:
        print_ = tuple((entry.filename, entry.CRC, entry.file_size) for entry in entries)
        known = self._known.get(name)
        if known is not None and known[0] == print_:
            return known[1]
        try:
            documents = {entry.filename.partition("/")[2]: archive.read(entry) for entry in entries}
            found = model.held(documents, self._digest)
        except (ValueError, ET.ParseError) as exc:
            return TerminalError(f"{name}: what the server holds makes no sense: {exc}", reason="UnreadableDocument")
        self._known[name] = (print_, found)
        return found

    async def _asked(self, name: str, desired: Bucket | None) -> Seen | None:
        """Document by document; of a retired one only whether it is there."""
        try:
            await self._client.call(Request("HEAD", bucket_path(name)))
        except Refused as exc:
            if exc.status == 404:
                return None
            who = "belongs to somebody else, or we may not see it" if exc.status == 403 else exc.message
            return Refused(exc.status, exc.code, who).translated(name)
        parts = [] if desired is None else [part for part in DOCUMENTS if getattr(desired, part) not in (None, False)]
        queries = dict(DOCUMENTS[part] for part in parts)
        try:
            bodies = await asyncio.gather(*(self._document(name, query) for query in queries))
            return replace(
                model.held({queries[q]: body for q, body in zip(queries, bodies, strict=True) if body}, self._digest),
                quota_bytes=None,
            )
        except Refused as exc:
            return exc.translated(name)
        except (ValueError, ET.ParseError) as exc:
            return TerminalError(f"{name}: what the server holds makes no sense: {exc}", reason="UnreadableDocument")

    async def _document(self, bucket: str, query: str) -> bytes | None:
        try:
            return await self._client.get(bucket_path(bucket), {query: ""})
        except Refused as exc:
            if exc.code in ABSENT:
                return None
            raise

    async def _completed(self, name: str, desired: Bucket | None, seen: Seen) -> Seen:
        """What only some look at: the contents of one that is to go, what new rules would remove."""
        if isinstance(seen, BackendError):
            return seen
        try:
            if desired is not None and desired.replication:
                seen = self._compared(desired.replication, seen)
            if desired is None:
                return replace(seen, contents=Contents(await listing.first(self._client, name)))
            rules = [rule for rule in desired.rules or () if rule.removes and seen.rules.rules.get(rule.id) != rule]
            return replace(seen, expiring=await listing.preview(self._client, name, rules)) if rules else seen
        except SecretNotFound as exc:
            return TerminalError(str(exc), reason="SecretNotFound")
        except Refused as exc:
            # What is to go must be known; a preview is a courtesy.
            return exc.translated(name) if desired is None else seen

    def _compared(self, rules: Sequence[Wanted], seen: HeldBucket) -> HeldBucket:
        """Whether the remotes are logged in to as declared."""
        logins = {one.rule.place: self._digest(*self._login(one.access_key, one.secret_key)) for one in rules}
        remotes = (
            replace(one, current=logins.get(one.place, one.login) == one.login) for one in seen.replication.remotes
        )
        return replace(seen, replication=replace(seen.replication, remotes=tuple(remotes)))

    def _login(self, access_key: SecretRef, secret_key: SecretRef) -> tuple[str, str]:
        return self._secrets.reveal(access_key), self._secrets.reveal(secret_key)

    def _digest(self, access_key: str, secret_key: str) -> str:
        return self._secrets.fingerprint(f"{access_key}\0{secret_key}")

    # --- steps ---------------------------------------------------------------------------------------------------------

    async def apply(self, step: Any, fence: Fence) -> Outcome:
        """Carry out one step. Raises what the client raises."""
        async with self._locks[step.external.name]:
            return await self._applied(step, step.external.name, fence)

    async def _applied(self, step: Any, bucket: str, fence: Fence) -> Outcome:
        document = _document_of(step)
        if document is not None:
            query, body = document
            await self._put_or_delete(bucket_path(bucket), query, body, fence)
            return Outcome(Result.SUCCEEDED, remember=_remembered(step))
        details: dict[str, Any] = {}
        match step:
            case CreateBucket():
                await self._create(bucket, fence, object_lock=step.object_lock)
            case PutRemote():
                return await self._put_remote(step, bucket, fence)
            case DropRemote():
                await self._drop_remote(step, bucket, fence)
            case SetQuota():
                await self._set_quota(bucket, step.quota_bytes, fence)
            case FreezeBucket():
                await self._freeze(bucket, fence)
            case EmptyBucket():
                details = {"removed": await listing.empty(self._client, bucket, fence)}
            case DropBucket():
                await self._check_started()
                await self._drop(bucket, fence)
            case _:
                raise TerminalError("this target can't carry out the step", reason="Unsupported")
        return Outcome(Result.SUCCEEDED, details)

    async def _check_started(self) -> None:
        """See [A server that starts makes buckets]. Raises `TransientError` while one of the servers does."""
        try:
            servers = json.loads(await self._client.admin("GET", "info")).get("servers", ())
        except (Refused, ValueError):
            return  # not a MinIO, or one that doesn't tell us
        left_s = STARTING_S - min((float(one.get("uptime", 0)) for one in servers), default=STARTING_S)
        if left_s > 0:
            message = "the server has just started, and makes again what is dropped meanwhile"
            raise TransientError(message, reason="Starting", retry_after_s=left_s)

    async def _create(self, bucket: str, fence: Fence, *, object_lock: bool) -> None:
        headers = {"x-amz-bucket-object-lock-enabled": "true"} if object_lock else {}
        try:
            await self._client.call(Request("PUT", bucket_path(bucket), headers=headers, fence=fence))
        except Refused as exc:
            if exc.code != "BucketAlreadyOwnedByYou":
                raise

    async def _put_or_delete(self, path: str, query: str, document: bytes, fence: Fence) -> None:
        if document:
            await self._client.put(path, {query: ""}, document, fence)
        else:
            await self._client.delete(path, {query: ""}, fence)

    async def _set_quota(self, bucket: str, quota_bytes: int, fence: Fence) -> None:
        body = json.dumps({"quota": quota_bytes, "quotatype": "hard"} if quota_bytes else {"quota": 0}).encode()
        await self._client.admin("PUT", "set-bucket-quota", {"bucket": bucket}, body, fence=fence)

    async def _put_remote(self, step: PutRemote, bucket: str, fence: Fence) -> Outcome:
        login = self._login(step.access_key, step.secret_key)
        target = replication.remote_target(bucket, step.place, login, step.arn)
        query = {"bucket": bucket} | ({"update": "true", "creds": "true"} if step.arn else {})
        sealed = await self._client.sealed(target)
        try:
            await self._client.admin("PUT", "set-remote-target", query, sealed, fence=fence)
        except Refused as exc:
            message = exc.message.replace(login[1], "…").replace(login[0], "…")
            raise Refused(exc.status, exc.code, " ".join(message.split())) from None
        return Outcome(Result.SUCCEEDED)

    async def _drop_remote(self, step: DropRemote, bucket: str, fence: Fence) -> None:
        query = {"bucket": bucket, "arn": step.arn}
        try:
            await self._client.admin("DELETE", "remove-remote-target", query, fence=fence)
        except Refused as exc:
            if exc.code != "XMinioAdminRemoteTargetNotFoundError":  # went with its last rule
                raise

    async def _freeze(self, bucket: str, fence: Fence) -> None:
        """A bucket policy binds only who isn't logged in; the others are kept out by a quota that nothing fits in."""
        document = policies.frozen(bucket).text().encode()
        await self._client.put(bucket_path(bucket), {"policy": ""}, document, fence)
        if self.export:
            await self._set_quota(bucket, FROZEN_BYTES, fence)

    async def _drop(self, bucket: str, fence: Fence) -> None:
        try:
            await self._client.delete(bucket_path(bucket), (), fence)
        except Refused as exc:
            if exc.code not in GONE:
                raise
        self._known.pop(bucket, None)


def _document_of(step: Any) -> tuple[str, bytes] | None:
    """The request and the document that a step puts; an empty document is removed. None: it is no document."""
    match step:
        case SetVersioning():
            return "versioning", model.versioning_document(step.versioning)
        case SetRetention():
            return "object-lock", model.retention_document(step.retention)
        case SetEncryption():
            return "encryption", model.encryption_document(step.encryption)
        case SetTags():
            return "tagging", model.tags_document(step.tags) if step.tags else b""
        case SetAccess():
            return "policy", step.policy.text().encode()
        case SetNotifications():
            return "notification", model.notification_document(step.texts)
        case SetLifecycle():
            return "lifecycle", lifecycle.document(step.texts) if step.texts else b""
        case SetReplication():
            return "replication", replication.document(step.texts) if step.texts else b""
        case _:
            return None


def _remembered(step: Any) -> dict[str, str]:
    match step:
        case SetTags():
            return model.remembered("tags", step.owned)
        case SetNotifications():
            return model.remembered("notifications", step.owned)
        case SetLifecycle():
            return model.remembered("rules", step.owned)
        case SetReplication():
            return model.remembered("replication", step.owned) | model.remembered("remotes", step.remotes)
        case _:
            return {}

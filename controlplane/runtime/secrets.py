"""The secret port: references → secrets, secrets → keyed fingerprints.

Note [Whose secrets]. Who may declare a target can have a secret sent there, so a tenant must not be able to name what is
another's. Where the directories are bounded, `TENANTS/NAME` in each of them is for the tenant of that name and for no other;
all else in them, and the environment, is for the tenant `default`. It depends on nothing that is declared, so a folder is
its tenant's before the tenant is there. Which tenant names a reference is checked where declarations are understood
(`check_permitted`): the backend that reveals it may serve settings of several tenants.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Protocol

from controlplane.log.kafka_address import PASSWORD_VARIABLE
from reconcilers.contract import SecretNotFound, Secrets
from schemas.names import DEFAULT
from schemas.secret import SecretRef, references_in

OWN: Final = frozenset({"COREPLANE_TOKEN", PASSWORD_VARIABLE})
"""Variables that are never revealed: whoever runs the daemon may have their own token in its environment, and the log's login
is the daemon's alone."""

TENANTS: Final = "tenants"
"""Note [Whose secrets]."""

FINGERPRINT_HEX = 16
"""Length of a fingerprint: enough to tell two secrets apart, useless for finding one."""

LEAST_KEY_BYTES = 32


class TenantSecrets(Secrets, Protocol):
    """The port as the daemon itself sees it."""

    def permits(self, tenant: str, reference: SecretRef) -> bool:
        """Whether a declaration of the tenant may name it."""


def check_permitted(secrets_: TenantSecrets, tenant: str, value: Any) -> None:
    """Raise `SecretNotFound` for a reference in a declared value that its tenant may not name. Note [Whose secrets]."""
    for reference in references_in(value):
        if not secrets_.permits(tenant, reference):
            raise SecretNotFound(reference)


class EnvironmentSecrets:
    """Secrets from the daemon's environment and files. Relative file names start at the data directory.

    `directories`: the files must lie in one of these; None: anywhere. `environment`: globs of the variables.
    """

    def __init__(
        self,
        data_dir: Path,
        key: bytes,
        *,
        directories: Sequence[Path] | None = None,
        environment: Sequence[str] = ("*",),
    ) -> None:
        self._data_dir = data_dir
        self._key = key
        self._directories = directories
        self._environment = tuple(environment)

    def reveal(self, reference: SecretRef) -> str:
        """The secret, without the trailing newline of a file; raises `SecretNotFound`. Read anew each time."""
        try:
            if reference.from_env is not None:
                return os.environ[self._allowed_variable(reference.from_env)]
            return self._allowed_file(str(reference.from_file)).read_text(encoding="utf-8").rstrip("\r\n")
        except (KeyError, OSError, UnicodeDecodeError, ValueError) as exc:
            raise SecretNotFound(reference) from exc

    def permits(self, tenant: str, reference: SecretRef) -> bool:
        """See `TenantSecrets`. Everybody's are everybody's where the directories aren't bounded."""
        if self._directories is None:
            return True
        if reference.from_file is None:
            return tenant == DEFAULT
        try:
            path = (self._data_dir / reference.from_file).resolve()
        except (OSError, ValueError):
            return False
        apart = [(self._data_dir / directory).resolve() / TENANTS for directory in self._directories]
        if tenant == DEFAULT:
            return not any(path.is_relative_to(folder) for folder in apart)
        return any(path.is_relative_to(folder / tenant) for folder in apart)

    def _allowed_variable(self, name: str) -> str:
        if name in OWN or not any(fnmatchcase(name, pattern) for pattern in self._environment):
            raise KeyError(name)
        return name

    def _allowed_file(self, name: str) -> Path:
        """The file itself, behind every symbolic link; ValueError when it lies outside."""
        path = (self._data_dir / name).resolve(strict=True)
        if self._directories is not None:
            allowed = [(self._data_dir / directory).resolve() for directory in self._directories]
            if not any(path.is_relative_to(directory) for directory in allowed):
                raise ValueError(name)
        return path

    def fingerprint(self, text: str) -> str:
        """HMAC-SHA256 under the daemon's key, shortened."""
        return hmac.digest(self._key, text.encode(), "sha256").hex()[:FINGERPRINT_HEX]


def fingerprint_key(data_dir: Path, reference: SecretRef | None = None) -> bytes:
    """The key of fingerprints: what is referred to, or one that is made on first use and kept (mode 0600), so that
    fingerprints stay comparable. Raises ValueError for a reference that leads nowhere, or to next to nothing."""
    if reference is not None:
        return _referred(data_dir, reference)
    path = data_dir / "fingerprint.key"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        key = secrets.token_bytes(32)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(key)
        return key


def _referred(data_dir: Path, reference: SecretRef) -> bytes:
    try:
        key = EnvironmentSecrets(data_dir, b"").reveal(reference).encode()
    except SecretNotFound as exc:
        msg = f"secrets.fingerprint_key: {exc}"
        raise ValueError(msg) from exc
    if len(key) < LEAST_KEY_BYTES:
        msg = f"secrets.fingerprint_key has {len(key)} bytes; `openssl rand -hex 32` makes one"
        raise ValueError(msg)
    return key

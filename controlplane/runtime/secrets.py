"""The secret port: references → secrets, secrets → keyed fingerprints."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from reconcilers.contract import SecretNotFound
from schemas.secret import SecretRef

FINGERPRINT_HEX = 16
"""Length of a fingerprint: enough to tell two secrets apart, useless for finding one."""


class EnvironmentSecrets:
    """Secrets from the daemon's environment and files. Relative file names start at the data directory."""

    def __init__(self, data_dir: Path, key: bytes) -> None:
        self._data_dir = data_dir
        self._key = key

    def reveal(self, reference: SecretRef) -> str:
        """The secret, without the trailing newline of a file; raises `SecretNotFound`. Read anew each time."""
        try:
            if reference.from_env is not None:
                return os.environ[reference.from_env]
            return (self._data_dir / str(reference.from_file)).read_text(encoding="utf-8").rstrip("\r\n")
        except (KeyError, OSError, UnicodeDecodeError, ValueError) as exc:
            raise SecretNotFound(reference) from exc

    def fingerprint(self, text: str) -> str:
        """HMAC-SHA256 under the daemon's key, shortened."""
        return hmac.digest(self._key, text.encode(), "sha256").hex()[:FINGERPRINT_HEX]


def fingerprint_key(data_dir: Path) -> bytes:
    """The key of fingerprints, made on first use and kept (mode 0600) so that fingerprints stay comparable."""
    path = data_dir / "fingerprint.key"
    try:
        return path.read_bytes()
    except FileNotFoundError:
        key = secrets.token_bytes(32)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(key)
        return key

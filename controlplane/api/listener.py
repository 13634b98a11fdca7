"""TLS of the listener: the certificate is read anew when its files change, without a restart and without ending anything."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

import structlog

from controlplane.config import TlsConfig

_log = structlog.get_logger()

LOOK_EVERY_S: Final = 5.0


class Certificate:
    """The certificate in use. `context` stays the same object: connections made later get what was loaded last."""

    def __init__(self, config: TlsConfig) -> None:
        """Raises ValueError when the files aren't a certificate and its key."""
        self._config = config
        self._seen = self._stamp()
        self.context = _context()
        self._load()

    async def follow(self, every_s: float = LOOK_EVERY_S) -> None:
        """Until cancelled. What can't be loaded is told, and the certificate before stays in use."""
        while True:
            await asyncio.sleep(every_s)
            await self.look()

    async def look(self) -> bool:
        """Load the files if they changed; True when they did and are in use now."""
        stamp = await asyncio.to_thread(self._stamp)
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            await asyncio.to_thread(self._load)
        except ValueError as exc:
            _log.error("certificate not loaded", error=str(exc))
            return False
        _log.info("certificate loaded", file=str(self._config.cert_file))
        return True

    def _load(self) -> None:
        files = (self._config.cert_file, self._config.key_file)
        try:
            # First into one that nobody uses: half of a new pair mustn't replace a whole old one.
            _context().load_cert_chain(*files)
            self.context.load_cert_chain(*files)
        except (OSError, ssl.SSLError) as exc:
            msg = f"http.tls: {files[0]} and {files[1]} can't be used: {exc}"
            raise ValueError(msg) from exc

    def _stamp(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in (self._config.cert_file, self._config.key_file))


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does, also behind a symbolic link; None when it isn't there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns

"""What keeps a daemon from starting, in a person's words."""

from __future__ import annotations

import errno
from typing import Final

from controlplane.api.auth import check_binding
from controlplane.cli.failure import Failure
from controlplane.config import Config
from controlplane.log.ports import LogCorrupt, LogUnavailable
from controlplane.projection import choice
from controlplane.runtime.secrets import fingerprint_key

TROUBLES: Final = (LogCorrupt, LogUnavailable, OSError)
"""What log, data directory and listener say before the daemon is ready. Afterwards these are bugs."""


def check(config: Config) -> None:
    """Failure for a configuration that no daemon starts with."""
    try:
        check_binding(config)
        choice.check(config)
        if config.secrets.fingerprint_key is not None:
            fingerprint_key(config.data_dir, config.secrets.fingerprint_key)
    except ValueError as exc:
        raise Failure(str(exc), hint="change the configuration file, or the options of the command") from exc


def failure_of(trouble: LogCorrupt | LogUnavailable | OSError, config: Config) -> Failure:
    """One of the troubles as a Failure."""
    if isinstance(trouble, LogCorrupt | LogUnavailable):
        return Failure(str(trouble))  # it says by itself what to do
    place = f"{config.http.host}:{config.http.port}"
    if trouble.errno == errno.EADDRINUSE:
        hint = "another coreplane? `coreplane status` tells; choose another port with --port or http.port"
        return Failure(f"{place} is in use by another program", hint=hint)
    if trouble.filename is None:
        reason = trouble.strerror or str(trouble)
        return Failure(f"can't listen on {place}: {reason}", hint="see http.host and http.port, or --host and --port")
    hint = "the data directory must be writable for who runs the daemon; --data or data_dir names another one"
    return Failure(f"{trouble.filename}: {trouble.strerror}", hint=hint)

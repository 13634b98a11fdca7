"""Which daemon, which tenant, with which token; and how a verb's coroutine is run."""

from __future__ import annotations

import asyncio
import getpass
import os
import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from controlplane.cli import upfile
from controlplane.cli.failure import Failure
from controlplane.client.errors import ClientError
from controlplane.client.http import CoreplaneClient

DEFAULT_URL = "http://127.0.0.1:8470"
DEFAULT_DATA = Path(".coreplane")
ATTEMPTS = 3
"""Fewer than an application's: a person sees the error and can try again."""

T = TypeVar("T")

Data = Annotated[
    Path,
    typer.Option(
        "--data", metavar="DIR", envvar="COREPLANE_DATA", help="Directory of the log, the projection and the backends."
    ),
]


@dataclass(frozen=True, slots=True)
class Session:
    """The global options. `url` None: the running `coreplane up`, else the default."""

    url: str | None
    token: str | None
    tenant: str
    debug: bool = False

    def client(self) -> CoreplaneClient:
        """A client for the daemon."""
        url = self.url or recorded_url(data_dir()) or DEFAULT_URL
        if not url.startswith(("http://", "https://")):
            msg = f"{url!r} is no URL of a daemon"
            raise Failure(msg, hint=f"write for example {DEFAULT_URL}")
        return CoreplaneClient(url, self.token, self.tenant, actor=actor(), attempts=ATTEMPTS)


def of(context: typer.Context) -> Session:
    """The session that the global options made."""
    session = context.obj
    assert isinstance(session, Session)  # noqa: S101 - the root callback put it there
    return session


def run(context: typer.Context, verb: Callable[[CoreplaneClient], Awaitable[T]]) -> T:
    """Run a verb with a client, to its end."""

    async def main() -> T:
        async with of(context).client() as client:
            return await verb(client)

    return asyncio.run(main())


def actor() -> str:
    """Who we say we are where the daemon has no tokens to tell by."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid{os.getuid()}"
    name = f"{user}@{platform.node()}"[:128]
    return name if name.isascii() and name.isprintable() else "cli"


def data_dir() -> Path:
    """Where a `coreplane up` of this shell would have its data."""
    return Path(os.environ.get("COREPLANE_DATA") or DEFAULT_DATA)


def recorded_url(directory: Path) -> str | None:
    """The address of the `coreplane up` that runs on the directory, if one does."""
    running = upfile.alive(directory)
    return running.url if running is not None else None


def from_environment() -> Session:
    """For shell completion, which runs before the global options are read."""
    environ = os.environ
    return Session(
        environ.get("COREPLANE_URL"), environ.get("COREPLANE_TOKEN"), environ.get("COREPLANE_TENANT", "default")
    )


COMPLETION_S = 2.0


def complete_type(incomplete: str) -> list[str]:
    """Setting types, or type/name, that begin so, as the daemon knows them; none when it doesn't answer."""
    setting_type, slash, _ = incomplete.partition("/")

    async def types() -> list[str]:
        async with from_environment().client() as client:
            if slash:
                return sorted(
                    [f"{setting_type}/{s['name']}" async for s in client.list_settings(setting_type=setting_type)]
                )
            schemas = await client.schemas()
        return [item["type"] for item in schemas["items"] if "." in item["type"]]

    return [name for name in _answered(types) if name.startswith(incomplete)]


def complete_operation(incomplete: str) -> list[str]:
    """Operations that begin so."""

    async def operations() -> list[str]:
        async with from_environment().client() as client:
            return [item["operation"] for item in (await client.operations())["items"]]

    return [name for name in _answered(operations) if name.startswith(incomplete)]


def complete_name(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the settings of the type typed before."""
    setting_type = context.params.get("setting_type")

    async def names() -> list[str]:
        async with from_environment().client() as client:
            return sorted({item["name"] async for item in client.list_settings(setting_type=setting_type)})

    return [name for name in _answered(names) if name.startswith(incomplete)]


def complete_path(context: typer.Context, incomplete: str) -> list[str]:
    """Paths that the setting typed before declares."""
    first, second = context.params.get("setting_type") or "", context.params.get("name")
    setting_type, _, name = first.partition("/")

    async def paths() -> list[str]:
        async with from_environment().client() as client:
            told = await client.explain(setting_type, second or name)
        return [row["path"] for row in told["paths"]]

    return [path for path in _answered(paths) if path.startswith(incomplete)]


def complete_target(context: typer.Context, incomplete: str) -> list[str]:
    """Targets of the service of the type typed before; of all services when there is none."""
    service = (context.params.get("setting_type") or "").partition(".")[0] or None

    async def names() -> list[str]:
        async with from_environment().client() as client:
            found = [s async for s in client.list_settings(service=service) if s["setting_type"].endswith(".target")]
        return sorted({setting["name"] for setting in found})

    return [name for name in _answered(names) if name.startswith(incomplete)]


def _answered(ask: Callable[[], Awaitable[list[str]]]) -> list[str]:
    """What the daemon proposes; nothing, and no noise in the person's prompt, when it can't be reached."""

    async def main() -> list[str]:
        async with asyncio.timeout(COMPLETION_S):
            return await ask()

    try:
        return asyncio.run(main())
    except (ClientError, TimeoutError):
        return []

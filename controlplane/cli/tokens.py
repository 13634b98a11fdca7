"""`coreplane token`: who may call, and what."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from controlplane.cli import arguments, printing, session, tables
from controlplane.cli.failure import Failure
from controlplane.cli.printing import Format, Output
from controlplane.cli.rows import Rows
from controlplane.client.http import CoreplaneClient
from schemas.names import SYSTEM, parse_timestamp, timestamp

Json = dict[str, Any]

TYPE: Final = "access.token"
SECRET_BYTES: Final = 32
MARK: Final = "cp_"
"""So that a token that leaked into a text is found there."""

ROLES: Final = ("viewer", "editor", "admin")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The token's name: it stands in the log for what is done.")]


def app() -> typer.Typer:
    """The verbs of `coreplane token`."""
    verbs = typer.Typer(no_args_is_help=True, help="Who may call, and what: make, list and revoke tokens.")
    verbs.command("create")(create)
    verbs.command("list")(list_)
    verbs.command("revoke")(revoke)
    return verbs


def create(
    context: typer.Context,
    name: Name,
    *,
    role: Annotated[str, typer.Option("--role", metavar="viewer|editor|admin", help="What it may do.")] = "viewer",
    service: Annotated[
        list[str],
        typer.Option("--service", metavar="SERVICE", help="Only settings of this service; repeat for several."),
    ] = [],  # noqa: B006 - Typer copies it
    reach: Annotated[
        list[str],
        typer.Option("--in", metavar="TENANT", help=f"With --tenant {SYSTEM}: a tenant it is good for; * for all."),
    ] = [],  # noqa: B006 - Typer copies it
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="DURATION|TIME", help="When it ends: 12h, 90d, or a time.")
    ] = None,
    rate: Annotated[float | None, typer.Option("--rate", metavar="N", help="Most requests a second.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a token, and print it: this once. The daemon only ever learns its SHA-256.

    Its role is good for the tenant it is made in. One that is good for several is made in the tenant `system`.

    $ coreplane token create ci --role editor --service cache --expires 90d

    $ coreplane --tenant system token create ops --role admin --in '*'
    """
    if role not in ROLES:
        msg = f"{role!r} is no role"
        raise Failure(msg, hint=f"write one of {', '.join(ROLES)}")
    grant: Json = {"role": role} | ({"services": service} if service else {}) | ({"tenants": reach} if reach else {})
    secret = MARK + secrets.token_urlsafe(SECRET_BYTES)
    value: Json = {"sha256": hashlib.sha256(secret.encode()).hexdigest(), "grants": [grant]}
    value |= {} if expires is None else {"expires_at": expiry(expires, time.time())}
    value |= {} if rate is None else {"requests_per_s": rate}

    async def verb(client: CoreplaneClient) -> Json:
        return await client.put_setting(TYPE, name, {"value": value}, if_absent=True)

    made = session.run(context, verb)
    if printing.is_for_machines(output):
        told = {"name": name, "tenant": made["tenant"], "token": secret, "expires_at": value.get("expires_at")}
        printing.show_data(told, output)
        return
    printing.show(Text(secret))
    printing.stderr().print(Text(f"{_described(made)}. It isn't shown again."), soft_wrap=True)


def list_(context: typer.Context, *, output: Output = Format.TABLE) -> None:
    """The tokens of the tenant: roles, services, age and end. Those of the configuration aren't among them.

    $ coreplane token list
    """

    async def verb(client: CoreplaneClient) -> list[Json]:
        return [setting async for setting in client.list_settings(setting_type=TYPE)]

    found = session.run(context, verb)
    if printing.is_for_machines(output):
        printing.show_data(found, output)
    else:
        printing.show(table(found, time.time()))


def revoke(context: typer.Context, name: Name) -> None:
    """Revoke a token: from now on it is refused, and its open streams end.

    $ coreplane token revoke ci
    """
    session.run(context, lambda client: client.delete_setting(TYPE, name))
    printing.show(Text(f"{name} is revoked"))


def expiry(text: str, now: float) -> str:
    """A duration as "from now on", a time as it stands. Raises Failure for what has passed."""
    at = now + arguments.duration_s(text) if text[-1:].isalnum() and "-" not in text else _time(text)
    if at <= now:
        msg = f"{text!r} has passed"
        raise Failure(msg, hint="write for example 90d, or 2027-01-31T12:00:00Z")
    return timestamp(at)


def table(tokens: Iterable[Json], now: float) -> Rows:
    """name, role, services, tenants, rate, age, end."""
    columns = ["NAME", "ROLE", "SERVICES", "TENANTS", "RATE", "AGE", "EXPIRES"]
    return Rows(columns, (_row(token, now) for token in tokens))


def _row(token: Json, now: float) -> list[str | Text]:
    value = token["value"]
    grants: Sequence[Json] = value["grants"]
    rate = value.get("requests_per_s")
    return [
        token["name"],
        " ".join(grant["role"] for grant in grants),
        " ".join(",".join(grant.get("services") or ["*"]) for grant in grants),
        " ".join(",".join(grant.get("tenants") or [token["tenant"]]) for grant in grants),
        "-" if rate is None else f"{rate:g}/s",
        tables.age(token.get("created_at"), now),
        Text("revoked", "magenta") if token.get("retiring") else ends(value.get("expires_at"), now),
    ]


def ends(expires_at: str | None, now: float) -> Text:
    """`in 12d`, `expired`, `never`."""
    if expires_at is None:
        return Text("never", "dim")
    left = parse_timestamp(expires_at) - now
    if left <= 0:
        return Text("expired", "bold red")
    return Text(f"in {tables.age(timestamp(now - left), now)}", "yellow" if left < SOON_S else "")


SOON_S: Final = 14 * 86_400.0
"""A token that ends within this is worth a warning."""


def _described(made: Json) -> str:
    grant = made["value"]["grants"][0]
    services, reach = grant.get("services"), grant.get("tenants") or [made["tenant"]]
    what = f"{grant['role']} of {', '.join(services)}" if services else grant["role"]
    return f"{made['name']} is {what} in {', '.join(reach)}, {_until(made['value'].get('expires_at'))}"


def _until(expires_at: str | None) -> str:
    return "for ever" if expires_at is None else f"until {expires_at}"


def _time(text: str) -> float:
    try:
        return parse_timestamp(text)
    except ValueError as exc:
        msg = f"{text!r} is no time"
        raise Failure(msg, hint="write for example 90d, or 2027-01-31T12:00:00Z") from exc

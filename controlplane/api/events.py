"""What the projection knows: events, statuses, metrics, and what follows from them."""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from aiohttp import web

from controlplane.api import parameters
from controlplane.api.call import Call, answer
from controlplane.api.settings import decoded_cursor, encoded_cursor
from controlplane.domain import answers
from controlplane.domain.errors import Fault, Reason, Refused
from controlplane.projection.queries import Aggregate, EventFilter, MetricFilter, Page, StatusFilter
from reconcilers.contract import Evidence

_UNITS_S: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_INTERVAL = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd]?)", re.ASCII)
_DAY_S: Final = 86_400.0


async def events(call: Call[parameters.EventQuery]) -> web.Response:
    """Events, newest first."""
    query = call.query
    wanted = EventFilter(
        call.tenant,
        parameters.known_service(query.service_name),
        query.event_type,
        query.status,
        parameters.setting_key(query.setting, call.tenant),
        since=parameters.instant(query.since, "since"),
        until=parameters.instant(query.until, "until"),
        text=query.text,
        limit=query.limit,
        cursor=query.cursor,
        services=call.services,
    )
    return _page(call, await call.parts.queries.events(wanted))


async def statuses(call: Call[parameters.StatusQuery]) -> web.Response:
    """The newest status of each setting, by keys."""
    query = call.query
    wanted = StatusFilter(
        call.tenant,
        parameters.known_service(query.service, "service"),
        query.type,
        parameters.setting_key(query.setting, call.tenant),
        query.phase,
        query.condition,
        query.reason,
        query.text,
        limit=query.limit,
        after=decoded_cursor(query.cursor),
        services=call.services,
    )
    page = await call.parts.queries.statuses(wanted)
    return _page(call, page._replace(next_cursor=encoded_cursor(page.next_cursor)))


async def metrics(call: Call[parameters.MetricQuery]) -> web.Response:
    """Points, newest first; with `interval` series of one value per interval."""
    query = call.query
    wanted = MetricFilter(
        call.tenant,
        parameters.known_service(query.service_name),
        query.metric_type,
        answers.labels_of(query.tag, "tag"),
        since=parameters.instant(query.since, "since"),
        until=parameters.instant(query.until, "until"),
        interval_s=_interval_s(query),
        aggregate=Aggregate(query.aggregate or "avg"),
        limit=query.limit,
        cursor=query.cursor,
        services=call.services,
    )
    return _page(call, await call.parts.queries.metrics(wanted))


async def metric_types(call: Call[parameters.OfService]) -> web.Response:
    """Which metrics there are, with the names of their tags."""
    service = parameters.known_service(call.query.service_name)
    found = await call.parts.queries.metric_types(call.tenant, service)
    seen = [row for row in found if call.services is None or row.service_name in call.services]
    return answer({"items": [{**row._asdict(), "tags": list(row.tags)} for row in seen]})


async def analytics(call: Call[parameters.Analysis]) -> web.Response:
    """What people of the service ask first, computed from what the projection holds."""
    name = call.request.match_info["service"]
    service = call.parts.services.get(name)
    if service is None or service.analyse is None:
        raise Refused(Reason.NOT_FOUND, f"there is no analysis of {name}")
    until = call.parts.clock.now()
    since = parameters.instant(call.query.since, "since")
    since = until - _DAY_S if since is None else since
    rows = await call.parts.queries.evidence(call.tenant, name, since, until)
    selection = answers.Selection(call.tenant, service=name)
    entries = answers.select(call.parts.replica.state.entries.values(), call.parts.statuses, selection)
    settings = [answers.setting(entry, call.parts.statuses.get(entry.key)) for entry in entries]
    evidence = Evidence(since, until, rows.metrics, rows.events, settings)
    # Weeks of points take long to go through: the loop has leases to keep.
    return answer(await asyncio.to_thread(service.analyse, evidence))


def _page(call: Call[Any], page: Page) -> web.Response:
    """Whatever a store gives: nobody is told of services that aren't theirs to look at."""
    services = call.services
    items = [item for item in page.items if services is None or item["service_name"] in services]
    return answer({"items": items, "next_cursor": page.next_cursor})


def _interval_s(query: parameters.MetricQuery) -> float | None:
    """Seconds; an aggregate without an interval gives one value a minute."""
    if query.interval is None:
        return 60.0 if query.aggregate else None
    found = _INTERVAL.fullmatch(query.interval)
    if found is None or float(found[1]) == 0:
        message = "is seconds or a number with s, m, h or d, for example 5m"
        raise Refused(Reason.MALFORMED, f"interval {message}", [Fault("?interval", message)])
    return float(found[1]) * _UNITS_S[found[2]]

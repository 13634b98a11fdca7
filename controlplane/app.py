"""Composition root: the only module that knows all others. What is started in which order, and stopped in the reverse.

Start: log → the replica catches up → statuses → controller (shards are taken, backends driven) → projection → HTTP, and
only then ready. Stop: HTTP ends → operations under way end → the controller begins nothing new and waits for effects under
way → projection → log.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import structlog
from aiohttp import web

from controlplane.api.auth import check_binding, is_required
from controlplane.api.forwarding import Forwarding
from controlplane.api.listener import Certificate
from controlplane.api.parts import Parts
from controlplane.api.routes import create_app
from controlplane.config import Config
from controlplane.domain.errors import Reason
from controlplane.log.choice import open_log, path_of, reserved
from controlplane.log.ports import Log, Membership, Stream
from controlplane.log.sqlite import Loss, accept_loss
from controlplane.projection import choice
from controlplane.projection.ports import Store
from controlplane.projection.projector import Projected, rebuild
from controlplane.runtime.administration import OWN
from controlplane.runtime.catalogue import Catalogue
from controlplane.runtime.clock import SystemClock
from controlplane.runtime.controller import Controller
from controlplane.runtime.directory import Directory
from controlplane.runtime.importing import Importing
from controlplane.runtime.operations import Operations
from controlplane.runtime.ownership import Ownership, always
from controlplane.runtime.past import Past
from controlplane.runtime.preview import Preview
from controlplane.runtime.replica import Replica
from controlplane.runtime.secrets import EnvironmentSecrets, fingerprint_key
from controlplane.runtime.shards import only_told
from controlplane.runtime.statuses import StatusView
from controlplane.runtime.streams import Streams
from controlplane.runtime.supervisor import Supervisor
from controlplane.telemetry.metrics import Metrics
from reconcilers.registry import SERVICES
from schemas.names import parse_key, timestamp

_log = structlog.get_logger()

SECRETS = Path("secrets")
"""Under the data directory: where secrets lie unless the configuration says otherwise."""
TRIM_EVERY_S = 3600.0
COUNT_EVERY_S = 5.0
TOMBSTONES_DAYS = 1.0
"""Trimming the status stream drops tombstones only; readers that are away for longer read it from the start."""
DAY_S = 86_400.0
SHUTDOWN_S = 5.0
"""Requests and streams under way get so long to end."""


class Daemon:
    """All parts of one running daemon. `async with` starts and stops them."""

    def __init__(self, config: Config) -> None:
        check_binding(config)
        self.config = config
        self.metrics = Metrics()
        self.clock = SystemClock()
        self.url = ""
        self._supervisor = Supervisor(self.metrics)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _start(self) -> None:
        config = self.config
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        log = self._log = await open_log(config)
        self._stack.push_async_callback(log.close)
        self.replica = Replica(log.settings, self.clock, self.metrics, shared=log.membership is not None)
        await self.replica.catch_up()
        self.directory = Directory(self.replica.state, config.tenants)
        self.directory.load()
        self.replica.listen(self.directory.follow)
        self.statuses = StatusView(log.journal)
        self.secrets = self._secrets()
        store = choice.store_of(config, self.secrets.reveal)
        self._stack.push_async_callback(store.close)
        self.projector = choice.follower_of(config, log, store, self.metrics)
        self._stack.push_async_callback(self._supervisor.stop)
        self._supervisor.start("replica", self.replica.run)
        self._supervisor.start("statuses", self.statuses.run)
        if config.projection.embedded:
            self._supervisor.start("projection", self.projector.run)
        self._supervisor.start("retention", lambda: self._trim_regularly(log))
        self._supervisor.start("census", self._count_regularly)
        self._stack.push_async_callback(self.replica.close)
        controller = await self._drive(log)
        await self._serve(controller, log, store)
        if log.membership is not None:
            self._join(controller, log.membership)

    def _secrets(self) -> EnvironmentSecrets:
        config = self.config
        directories = config.secrets.directories
        if directories is None and is_required(config.auth):
            directories = (SECRETS,)
        return EnvironmentSecrets(
            config.data_dir,
            fingerprint_key(config.data_dir, config.secrets.fingerprint_key),
            directories=directories,
            environment=config.secrets.environment,
        )

    async def _drive(self, log: Log) -> Controller:
        self.catalogue = Catalogue({**SERVICES, **OWN}, self.clock, self.directory)
        controller = Controller(
            self.replica,
            log.journal,
            self.statuses,
            self.catalogue,
            secrets=self.secrets,
            clock=self.clock,
            metrics=self.metrics,
            config=self.config.runtime,
            may_take=always if log.membership is None else log.membership.owns,
            reserved=reserved(self.config),
            put_aside=log.put_aside or only_told,
        )
        self._stack.push_async_callback(controller.stop)
        await controller.start()
        if log.membership is None:
            await controller.own(range(log.journal.shards))
        return controller

    def _join(self, controller: Controller, membership: Membership) -> None:
        """Become one of the replicas, once others can reach us."""
        if self.config.secrets.fingerprint_key is None:
            _log.info("fingerprints are this replica's alone", advice="give all replicas one secrets.fingerprint_key")
        membership.announce(self.config.http.advertise or self.url)
        self._supervisor.start("ownership", Ownership(membership, controller, self.replica.halted).run)

    async def _serve(self, controller: Controller, log: Log, store: Store) -> None:
        preview = Preview(
            self.replica.state,
            self.catalogue,
            self.statuses,
            controller,
            secrets=self.secrets,
            clock=self.clock,
            metrics=self.metrics,
        )
        operations = Operations(self.catalogue, controller, self.replica.state, self.metrics)
        self._stack.push_async_callback(operations.close)
        parts = Parts(
            config=self.config,
            replica=self.replica,
            statuses=self.statuses,
            journal=log.journal,
            queries=store,
            control=controller,
            operations=operations,
            streams=Streams(self.catalogue, controller),
            kinds=self.catalogue.value_models(),
            services=SERVICES,
            metrics=self.metrics,
            clock=self.clock,
            past=Past(self.replica),
            preview=preview,
            directory=self.directory,
            trespasses=self.catalogue.foreseen_trespasses,
            importing=Importing(
                self.replica.state, self.catalogue, controller, preview, clock=self.clock, metrics=self.metrics
            ),
            troubles=self._troubles,
            forwarding=self._forwarding(log),
            projection_lag=lambda: self.projector.lag,
        )
        http = self.config.http
        runner = web.AppRunner(
            create_app(parts),
            access_log=None,
            shutdown_timeout=SHUTDOWN_S,
            keepalive_timeout=http.idle_timeout_s,
            max_line_size=http.max_header_bytes,
            max_field_size=http.max_header_bytes,
            max_headers=http.max_headers,
        )
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        certificate = None if http.tls is None else Certificate(http.tls)
        if certificate is not None:
            self._supervisor.start("certificate", certificate.follow)
        site = web.TCPSite(
            runner, http.host, http.port, ssl_context=None if certificate is None else certificate.context
        )
        await site.start()
        host, port, *_ = runner.addresses[0]
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
        _log.info("ready", url=self.url)

    def _forwarding(self, log: Log) -> Forwarding:
        forwarding = Forwarding(None if log.membership is None else log.membership.address_of)
        self._stack.push_async_callback(forwarding.close)
        return forwarding

    def _troubles(self) -> Sequence[Mapping[str, str]]:
        found = (
            ("projection", "Degraded", self.projector.degraded),
            ("log", str(Reason.LOG_UNAVAILABLE), self._log.trouble),
        )
        return [{"part": part, "reason": reason, "message": text} for part, reason, text in found if text is not None]

    async def _trim_regularly(self, log: Log) -> None:
        """Let the journal forget what is older than its retention."""
        kept = {
            Stream.EVENTS: self.config.log.events_retention_days,
            Stream.METRICS: self.config.log.metrics_retention_days,
            Stream.STATUS: TOMBSTONES_DAYS,
        }
        while True:
            await asyncio.sleep(TRIM_EVERY_S)
            for stream, days in kept.items():
                gone = await log.journal.trim(stream, timestamp(self.clock.now() - days * DAY_S))
                _log.info("journal trimmed", stream=str(stream), records=gone)

    async def _count_regularly(self) -> None:
        """Keep the gauge of settings by service and phase."""
        while True:
            counts: Counter[tuple[str, str]] = Counter()
            for key in list(self.replica.state.entries):
                status = self.statuses.get(key)
                counts[parse_key(key).service, "Pending" if status is None else str(status.phase)] += 1
            self.metrics.settings(counts)
            await asyncio.sleep(COUNT_EVERY_S)


async def serve(config: Config, *, ready: Callable[[str], None] | None = None) -> None:
    """Run the daemon until cancelled; `ready` is called with its URL.

    Raises ValueError (configuration), `LogUnavailable` (held by another process, wrong shards) and `LogCorrupt`.
    """
    async with Daemon(config) as daemon:
        # What start-up made stays: walking through all of it again would stop everything for 50 ms now and then.
        gc.collect()
        gc.freeze()
        if ready is not None:
            ready(daemon.url)
        await asyncio.Event().wait()


async def accept_log_loss(config: Config) -> Loss:
    """Go on with a log that lost its last commits. The daemon must be stopped.

    The offsets of what was lost are given anew, so the projection, which may hold the lost records, is rebuilt.
    """
    loss = await asyncio.to_thread(accept_loss, path_of(config))
    await rebuild_projection(config)
    return loss


async def rebuild_projection(config: Config) -> Projected:
    """Make the projection anew from the journal. The daemon must be stopped: the log's lock says when it isn't."""
    log = await open_log(config)
    store = choice.store_of(config, secrets_of(config))
    try:
        return await rebuild(log.journal, store)
    finally:
        await store.close()
        await log.close()


async def examine_projection(config: Config) -> str | None:
    """What is wrong with a projection in Elasticsearch; None when nothing is. Raises `StoreUnavailable`."""
    store = choice.elasticsearch_of(config, secrets_of(config))
    try:
        return await store.complaint()
    finally:
        await store.close()


def secrets_of(config: Config) -> choice.Reveal:
    """Secrets as the daemon finds them."""
    return EnvironmentSecrets(config.data_dir, b"").reveal

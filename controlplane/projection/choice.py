"""Which store and which projector a configuration means.

projection.url          store           projector
nothing, sqlite:PATH    SQLite          projector
http[s]://…             Elasticsearch   faust_projector on a Kafka log, else projector

What reads a Kafka log is loaded only for one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from controlplane.config import Config
from controlplane.log.choice import is_kafka
from controlplane.log.ports import Log
from controlplane.projection import elasticsearch_address
from controlplane.projection.elasticsearch import ElasticsearchStore
from controlplane.projection.elasticsearch_wire import Login
from controlplane.projection.ports import Store, StoreUnavailable
from controlplane.projection.projector import Lag, Projector, Retention
from controlplane.projection.sqlite import SqliteStore
from controlplane.telemetry.metrics import Metrics
from reconcilers.contract import SecretNotFound
from schemas.secret import SecretRef

Reveal = Callable[[SecretRef], str]
"""A reference → the secret; raises `SecretNotFound`."""


class Follower(Protocol):
    """What fills the store."""

    @property
    def lag(self) -> Lag:
        """How far the projection is behind."""

    @property
    def degraded(self) -> str | None:
        """Why it can't go on for now, for people; None while all is well."""

    async def run(self) -> None:
        """Follow the journal; for a supervisor."""


def check(config: Config) -> None:
    """Raises ValueError for a configuration that means no projection."""
    if elasticsearch_address.is_elasticsearch(config.projection.url):
        elasticsearch_address.parse(config.projection.url)
        if (config.projection.username is None) != (config.projection.password is None):
            msg = "projection.username and projection.password go together"
            raise ValueError(msg)
        return
    path_of(config)
    if not config.projection.embedded:
        msg = "projection.embedded: only a projection in Elasticsearch can be filled by another process"
        raise ValueError(msg)


def path_of(config: Config) -> Path:
    """The file of the projection. Raises ValueError for another kind of URL."""
    url = config.projection.url
    if url and not url.startswith("sqlite:"):
        msg = f"projection.url {url!r}: this version knows sqlite:PATH and http[s]://HOST:PORT (Elasticsearch)"
        raise ValueError(msg)
    return Path(url.removeprefix("sqlite:")) if url else config.data_dir / "projection.db"


def is_shared(config: Config) -> bool:
    """Whether it can be filled beside the daemons, and rebuilt while they use it."""
    return elasticsearch_address.is_elasticsearch(config.projection.url) and is_kafka(config)


def store_of(config: Config, reveal: Reveal) -> Store:
    """The store; nothing is opened yet."""
    if elasticsearch_address.is_elasticsearch(config.projection.url):
        return elasticsearch_of(config, reveal)
    return SqliteStore(path_of(config))


def elasticsearch_of(config: Config, reveal: Reveal, generation: int | None = None) -> ElasticsearchStore:
    """The store on Elasticsearch, of one generation or of whichever is live."""
    address = elasticsearch_address.parse(config.projection.url)
    return ElasticsearchStore(address, login=_login(config, reveal), generation=generation)


def follower_of(config: Config, log: Log, store: Store, metrics: Metrics) -> Follower:
    """What fills the store from the log."""
    if is_kafka(config) and isinstance(store, ElasticsearchStore):
        from controlplane.log.kafka import KafkaLog  # noqa: PLC0415 - see above
        from controlplane.projection.faust_projector import FaustProjector  # noqa: PLC0415

        if isinstance(log, KafkaLog):
            member = config.projection.member
            return FaustProjector(log, store, metrics, member=member, retention=retention_of(config))
    return Projector(log.journal, store, metrics, retention=retention_of(config))


def retention_of(config: Config) -> Retention:
    """As long as the journal keeps its records."""
    return Retention(config.log.events_retention_days, config.log.metrics_retention_days)


def _login(config: Config, reveal: Reveal) -> Login:
    username, password = config.projection.username, config.projection.password

    def login() -> tuple[str, str] | None:
        if username is None or password is None:
            return None
        try:
            return username, reveal(password)
        except SecretNotFound as exc:
            raise StoreUnavailable(f"projection.password: {exc}") from exc

    return login

"""Settings of the daemon, frozen, by concern. Each field says its unit, its default and why that default.

Read from a YAML file (`coreplane serve --config`) or built by `coreplane up`; unknown fields are refused with their path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from schemas.secret import SecretRef


class Section(BaseModel):
    """A frozen part of the configuration that refuses what it doesn't know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsConfig(Section):
    """Certificate and key of the listener, PEM; read anew when they change."""

    cert_file: Path
    """The certificate, and those between it and a known authority."""
    key_file: Path


class HttpConfig(Section):
    """The listener."""

    host: str = "127.0.0.1"
    """Loopback unless authentication is configured; the daemon refuses to start otherwise."""
    port: int = Field(default=8470, ge=0, le=65_535)
    """0 lets the system choose."""
    advertise: Annotated[str, Field(pattern=r"^(https?://[^/?#@\s]+)?$")] = ""
    """Where other replicas reach this one, as a URL without a path. Empty: where it listens. Needed when it listens on all
    addresses, or behind a proxy."""
    max_body_bytes: int = Field(default=8 * 1024 * 1024, gt=0)
    """Larger bodies are refused with 413: about 20,000 small declarations."""
    request_timeout_s: float = Field(default=10.0, gt=0)
    """Longest wait for the verdict on a write; then 504 with the request id."""
    max_streams: int = Field(default=256, gt=0)
    """Open event streams; one more is refused with 429."""
    max_header_bytes: int = Field(default=8190, ge=256)
    """Longest request line and longest header; longer ones are refused with 400."""
    max_headers: int = Field(default=64, ge=16)
    """Most headers of a request."""
    idle_timeout_s: float = Field(default=75.0, gt=0)
    """A connection on which no whole request head arrives for so long is closed."""
    tls: TlsConfig | None = None
    """None: plain HTTP, for loopback or behind a proxy."""


class Token(Section):
    """A bearer token that is there from the start, to make others with (`coreplane token create`). Only its SHA-256 is
    configured."""

    name: Annotated[str, Field(pattern=r"^[^/\x00-\x1f\x7f]{1,128}$")]
    """Stands in the log for what is done with it. Without a slash: names with one are those of tokens in the log."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    role: Literal["viewer", "editor", "admin"]
    tenants: tuple[str, ...] = ("*",)
    services: tuple[str, ...] = ("*",)
    expires_at: AwareDatetime | None = None
    requests_per_s: float | None = Field(default=None, gt=0)
    """None: `auth.requests_per_s`."""


class AuthConfig(Section):
    """Who may call. No tokens: everybody on loopback is admin."""

    tokens: tuple[Token, ...] = ()
    required: bool | None = None
    """Whether nobody is let in without a token. None: as soon as tokens are configured. True without any: those of the
    log are enough."""
    requests_per_s: float | None = Field(default=None, gt=0)
    """Rate limit of each token that has none of its own; counted by each replica for itself. None: no limit."""
    max_streams: int = Field(default=64, gt=0)
    """Open streams of each token, of events and of contents; one more is refused with 429. Counted by each replica."""


class SecretsConfig(Section):
    """Where references to secrets may lead. Who may declare a target can have a secret sent there, so what isn't meant to be
    used by declarations must not be reachable by them."""

    directories: tuple[Path, ...] | None = None
    """Files must lie in one of these, also behind symbolic links; relative ones start at `data_dir`. None: `secrets` once
    tokens are required, and anywhere before: then all who call are trusted as the daemon's own user is."""
    environment: tuple[str, ...] = ("*",)
    """Globs of the environment variables that may be referred to. COREPLANE_TOKEN and COREPLANE_LOG_PASSWORD never may."""
    fingerprint_key: SecretRef | None = None
    """The key of fingerprints of secrets, the same for all replicas of a log: else each sets anew what another one wrote and
    what can't be read back. At least 32 random bytes. None: one of its own, made under `data_dir`."""


class LogConfig(Section):
    """The settings log and the journal."""

    url: str = ""
    """Empty: one SQLite file under `data_dir`. `kafka://[user@]host:port[,host:port][?prefix=&tls=true&ca_file=&mechanism=]`:
    topics on a cluster; the password is COREPLANE_LOG_PASSWORD. `memory:` for trying things out."""
    shards: int = Field(default=16, ge=1, le=1024)
    """Fixed when the log is created."""
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    """Of SQLite. FULL: acknowledged means fsynced. NORMAL may lose the last commits on power loss."""
    events_retention_days: float = Field(default=90, gt=0)
    metrics_retention_days: float = Field(default=7, gt=0)


class ProjectionConfig(Section):
    """The searchable copy of the journal."""

    url: str = ""
    """Empty: one SQLite file under `data_dir`, rebuildable at any time. `http[s]://host:port[?prefix=&ca_file=]`:
    Elasticsearch, for replicas that share it."""
    username: str | None = None
    password: SecretRef | None = None
    """Of Elasticsearch; the reference is looked up where the daemon runs."""
    embedded: bool = True
    """False: `coreplane project`, run elsewhere, fills it; the daemon only asks it."""
    member: str = ""
    """With Kafka and Elasticsearch: name of this replica among those that fill it. One that comes back under its name within
    30 s gets its partitions back without a pause for the others; empty: each start is a new member."""


class RuntimeConfig(Section):
    """The controller. The defaults keep a hand-made change in a backend for at most a minute."""

    start_deadline_s: float = Field(default=1.0, gt=0)
    """After the intent's commit began, an effect may start for this long; afterwards it isn't sent."""
    backoff_initial_s: float = Field(default=0.5, gt=0)
    backoff_cap_s: float = Field(default=60.0, gt=0)
    """Longest pause between two tries of one key or one target."""
    commit_timeout_s: float = Field(default=8.0, gt=0)
    shutdown_timeout_s: float = Field(default=10.0, gt=0)
    sweep_s: float | None = Field(default=None, gt=0)
    """Overrides the sweep interval of every service; None keeps theirs."""
    sample_s: float | None = Field(default=None, gt=0)
    """Overrides the sampling interval of every service; None keeps theirs."""


class TelemetryConfig(Section):
    """Logs. Metrics are always on, at /metrics."""

    log_format: Literal["console", "json"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Config(Section):
    """Everything the daemon is told."""

    data_dir: Path = Path(".coreplane")
    """Log, projection and the key of secret fingerprints live here; one daemon at a time (file lock)."""
    http: HttpConfig = HttpConfig()
    auth: AuthConfig = AuthConfig()
    secrets: SecretsConfig = SecretsConfig()
    log: LogConfig = LogConfig()
    projection: ProjectionConfig = ProjectionConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    tenants: tuple[str, ...] = ("default",)
    """Tenants that may be used."""

"""Whose secrets a tenant may have sent somewhere: its own, by the real daemon, also on a target of another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from reconcilers.cache.acl import CONFINED
from tests.integration.api_daemon import token, until
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

ROOT = token("root", "admin").model_dump(mode="json", exclude_none=True)
THEIRS, OURS = "secrets/tenants/acme/redis", "secrets/redis"
SHARE = {"target": "default/cache.target/redis", "tenant": "acme", "prefix": "acme:"}


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[DaemonProcess]:
    """A daemon that requires tokens, with a secret of each tenant, and the tenant acme."""
    process = DaemonProcess(tmp_path / "coreplane", {"auth": {"tokens": [ROOT]}, "runtime": {"backoff_cap_s": 1.0}})
    for name in (THEIRS, OURS):
        (process.data_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (process.data_dir / name).write_text("sesame")
    await process.start(PASSWORD="sesame")
    async with process.client(token="secret-root", tenant="system") as system:
        await system.put_setting("access.tenant", "acme", {"value": {}})
    yield process
    await process.clean_up()


async def declared(process: DaemonProcess, tenant: str, name: str, reference: dict[str, str], url: str) -> str:
    """Declare a target with a password; the reason of what becomes of it."""
    value = {"kind": "redis", "url": url, "username": "default", "password": reference}
    async with process.client(token="secret-root", tenant=tenant) as client:
        await client.put_setting("cache.target", name, {"value": value})

        async def reason() -> str | None:
            status = (await client.get_setting("cache.target", name))["status"]
            ready = next((one for one in status["conditions"] if one["type"] == "Ready"), {"reason": ""})
            return ready["reason"] if ready["reason"] in {"Converged", "SecretNotFound"} else None

        return str(await until(reason, 60))


async def test_a_secret_is_sent_for_its_own_tenant_alone(guarded: DaemonProcess, redis_server: Any) -> None:
    async with Redis.from_url(redis_server.url) as admin:
        await admin.config_set("requirepass", "sesame")
        for tenant, reference, reason in (
            ("acme", {"from_file": THEIRS}, "Converged"),
            ("default", {"from_file": OURS}, "Converged"),
            ("default", {"from_env": "PASSWORD"}, "Converged"),
            ("acme", {"from_file": OURS}, "SecretNotFound"),
            ("acme", {"from_file": "secrets/tenants/acme/../../redis"}, "SecretNotFound"),
            ("acme", {"from_env": "PASSWORD"}, "SecretNotFound"),
            ("default", {"from_file": THEIRS}, "SecretNotFound"),
        ):
            name = f"t-{abs(hash((tenant, *reference.values())))}"
            assert await declared(guarded, tenant, name, reference, redis_server.url) == reason, (tenant, reference)


async def test_on_a_shared_target_a_tenant_still_names_its_own(guarded: DaemonProcess, redis_server: Any) -> None:
    async with Redis.from_url(redis_server.url) as admin:
        await admin.config_set("requirepass", "sesame")
    assert await declared(guarded, "default", "redis", {"from_file": OURS}, redis_server.url) == "Converged"
    async with guarded.client(token="secret-root", tenant="system") as system:
        await system.put_setting("access.share", "acme-redis", {"value": SHARE})
    user: dict[str, Any] = {"target": "default/redis", "keys": ["acme:*"], "commands": ["+@all", *CONFINED]}
    async with guarded.client(token="secret-root", tenant="acme") as acme:
        for name, reference, phase in (("a", THEIRS, "Ready"), ("b", OURS, "Stalled")):
            value = {**user, "username": f"acme:{name}", "passwords": [{"from_file": reference}]}
            await acme.put_setting("cache.redis_user", name, {"value": value})

            async def settled(name: str = name, phase: str = phase) -> bool:
                status = (await acme.get_setting("cache.redis_user", name))["status"]
                return bool(status["phase"] == phase)

            await until(settled, 60)
        plan = await acme.plan(
            [
                {
                    "type": "cache.redis_user",
                    "name": "c",
                    "value": {**user, "username": "acme:c", "passwords": [{"from_file": OURS}]},
                }
            ]
        )
    assert (plan["steps"], plan["refused"][0]["reason"]) == ([], "SecretNotFound")

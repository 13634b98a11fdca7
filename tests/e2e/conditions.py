"""Waiting for the world to be as it should, with a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from controlplane.client.http import CoreplaneClient

LOOK_S = 0.05

T = TypeVar("T")


async def until(condition: Callable[[], Awaitable[T]], within_s: float, what: str) -> T:
    """What the condition gave when it first held; the test fails when that takes too long."""
    last: object = None
    try:
        async with asyncio.timeout(within_s):
            while not (last := await condition()):
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        pytest.fail(f"not within {within_s:g} s: {what} (last: {last!r})")
    return last  # type: ignore[return-value]


async def all_ready(client: CoreplaneClient, within_s: float = 30) -> None:
    """Every setting is Ready for its newest generation, and none is on its way out."""
    unready: dict[str, Any] = {}

    async def ready() -> bool:
        unready.clear()
        async for setting in client.list_settings():
            if setting["retiring"] or not is_ready(setting):
                unready[f"{setting['setting_type']}/{setting['name']}"] = setting["status"]
        return not unready

    try:
        async with asyncio.timeout(within_s):
            while not await ready():
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        pytest.fail(f"not Ready within {within_s:g} s: {unready}")


def is_ready(setting: dict[str, Any]) -> bool:
    """The setting is as its newest generation wants it."""
    status = setting["status"]
    return status["phase"] == "Ready" and status["observed_generation"] == setting["generation"]


async def phase(
    client: CoreplaneClient, setting_type: str, name: str, wanted: str, within_s: float = 20
) -> dict[str, Any]:
    """The setting, once it is in the phase."""

    async def there() -> dict[str, Any] | None:
        setting = await client.get_setting(setting_type, name)
        return setting if setting["status"]["phase"] == wanted else None

    found = await until(there, within_s, f"{setting_type}/{name} is {wanted}")
    assert found is not None
    return found


def condition_of(setting: dict[str, Any], condition_type: str) -> dict[str, Any]:
    """One condition of a setting's status."""
    return next(one for one in setting["status"]["conditions"] if one["type"] == condition_type)

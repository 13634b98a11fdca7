"""The `wait_for` that loses no cancellation."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from controlplane.cli import daemon
from controlplane.runtime import cancelling


@pytest.fixture(autouse=True)
def of_asyncio_afterwards() -> Iterator[None]:
    before = asyncio.wait_for
    yield
    asyncio.wait_for = before


async def ended_by_a_cancellation_that_comes_with_the_result() -> bool:
    came: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(asyncio.wait_for(came, 5))
    await asyncio.sleep(0)
    came.set_result(1)
    task.cancel()
    await asyncio.wait({task})
    return task.cancelled()


async def test_a_cancellation_that_comes_with_the_result_ends_the_task():
    assert await ended_by_a_cancellation_that_comes_with_the_result() == (sys.version_info >= (3, 12))
    cancelling.lose_none()
    assert await ended_by_a_cancellation_that_comes_with_the_result()


async def test_whatever_is_ended_by_a_signal_loses_none():
    ended: list[bool] = []

    async def work() -> None:
        ended.append(await ended_by_a_cancellation_that_comes_with_the_result())

    await daemon.until_signal(work())
    assert ended == [True]


async def value(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@pytest.mark.parametrize("limit_s", [None, 5, 0.001, 0, -1])
async def test_it_waits_as_that_of_asyncio_does(limit_s: float | None):
    outcomes = []
    for wait_for in (asyncio.wait_for, cancelling.wait_for):
        for work_s in (0.0, 0.05):
            try:
                outcomes.append(await wait_for(value(work_s), limit_s))
            except TimeoutError:
                outcomes.append("too late")
    assert outcomes[:2] == outcomes[2:]


async def test_what_is_there_already_is_never_too_late():
    came: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    came.set_result(1)
    assert await cancelling.wait_for(came, 0) == 1


async def test_what_it_waited_for_too_long_is_cancelled():
    task = asyncio.create_task(value(5))
    with pytest.raises(TimeoutError):
        await cancelling.wait_for(task, 0.001)
    assert task.cancelled()

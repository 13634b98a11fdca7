"""Servers of the devstack, by themselves."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.devstack import memcached, redis

pytestmark = pytest.mark.integration


async def test_a_fresh_redis_answers_with_the_pid_that_was_started(redis_server: Any):
    assert await redis.probe(redis_server.port) == redis_server.pid


async def test_a_fresh_memcached_answers_with_the_pid_that_was_started(memcached_server: Any):
    assert await memcached.probe(memcached_server.port) == memcached_server.pid


async def test_a_killed_server_comes_back_on_its_port_as_another_process(redis_server: Any):
    before = redis_server.pid
    await redis_server.kill()
    with pytest.raises(ConnectionRefusedError):
        await redis.probe(redis_server.port)
    await redis_server.restart()
    assert redis_server.pid != before
    assert await redis.probe(redis_server.port) == redis_server.pid


async def test_two_servers_run_side_by_side(redis_server: Any, second_redis_server: Any):
    pids = {await redis.probe(server.port) for server in (redis_server, second_redis_server)}
    assert pids == {redis_server.pid, second_redis_server.pid}

"""Three replicas on a real Kafka and a real Redis under faults; an independent checker says whether everything held.

One seeded run unless told otherwise. COREPLANE_FAULT_SEEDS=20 takes so many seeds in a row, each with faults drawn from all
kinds; COREPLANE_FAULT_SEED says where they begin. The seed and the faults of every run are printed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.devstack.guardian import Guardian
from controlplane.devstack.ports import LOOPBACK, any_free
from controlplane.devstack.provision import Program
from controlplane.devstack.redis import REDIS
from tests.e2e.fault_checker import Evidence, violations
from tests.e2e.fault_cluster import FAULTS, Distant
from tests.e2e.fault_run import Plan, run
from tests.servers import kafka_in, started

SEEDS = int(os.environ.get("COREPLANE_FAULT_SEEDS", "0"))
FIRST = int(os.environ.get("COREPLANE_FAULT_SEED", "1"))
FAULTS_IN_A_LONG_RUN = 8
SHORT = Plan(FIRST, ("slow", "killed", "road_slow", "owner_stood_still", "broker_froze", "road_cut"))
LONG = [
    Plan(seed, random.Random(seed).choices(sorted(FAULTS), k=FAULTS_IN_A_LONG_RUN))
    for seed in range(FIRST, FIRST + SEEDS)
]
UNFENCED_RUNS = 4
UNFENCED = (str(Path(__file__).with_name("unfenced_daemon.py")), "serve", "--config")

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def distant(tmp_path_factory: pytest.TempPathFactory, guardian: Guardian) -> Iterator[Distant]:
    port = any_free()
    told = f"advertised.listeners=PLAINTEXT://{LOOPBACK}:{port}"
    server = kafka_in(tmp_path_factory.mktemp("distant"), guardian, "--override", told)
    yield Distant(server, port)
    server.end()


def summary(plan: Plan, found: Evidence) -> str:
    types = Counter(event.said["event_type"] for event in found.topics.events)
    return (
        f"seed {plan.seed}, {', '.join(plan.faults)}: {len(found.history.told)} answers after "
        f"{found.history.repeats} repetitions, {types['ShardTaken']} takeovers, {types['ActionStarted']} effects, "
        f"{types['ActionUnknown']} unknown, {len(found.writes)} registrations, {len(found.history.streamed)} streams"
    )


@pytest.mark.parametrize("plan", LONG or [SHORT], ids=lambda plan: f"seed{plan.seed}")
async def test_under_faults_every_law_holds(plan: Plan, tmp_path: Path, distant: Distant, redis_server: Any):
    print(f"seed {plan.seed}: {', '.join(plan.faults)}")
    found = await run(plan, tmp_path, distant, redis_server.url)
    print(summary(plan, found))
    assert violations(found) == []


async def test_the_checker_notices_when_the_fence_is_broken(
    tmp_path: Path, distant: Distant, programs: dict[str, Program], guardian: Guardian
):
    """An owner that stood still does damage only when it had something under way: one of a few runs shows it."""
    for seed in range(FIRST, FIRST + UNFENCED_RUNS):
        plan = Plan(seed, ("owner_stood_still",) * 3, UNFENCED, converges=False)
        redis = await started(REDIS, tmp_path / f"redis{seed}", programs["redis"], guardian)
        found = await run(plan, tmp_path / f"run{seed}", distant, redis.url)
        await redis.kill()
        print(summary(plan, found))
        broken = violations(found)
        print("\n".join(broken[:5]))
        # What the cluster was still at when the evidence was taken has no end, which says nothing of the fence.
        if any(line.startswith("P5") and "never ended" not in line for line in broken):
            return
    pytest.fail(f"nothing was noticed in {UNFENCED_RUNS} runs")

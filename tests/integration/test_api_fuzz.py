"""Whatever is sent along the OpenAPI document, and beside it: the daemon never fails.

Bounded here; COREPLANE_FUZZ_EXAMPLES=500 looks longer.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from controlplane.api.routes import ROUTES
from controlplane.api.stream import follow
from controlplane.api.table import Route
from tests.servers import DaemonProcess

pytestmark = pytest.mark.integration

EXAMPLES = int(os.environ.get("COREPLANE_FUZZ_EXAMPLES", "12"))
BY_DESIGN = {"NotFoldedYet", "BackendUnreachable"}
"""Answers with a 5xx status that aren't failures: what was asked for isn't there yet, or not now."""
SHORT_S = 0.01
"""Waits that are asked for are cut to this."""

ANSWERED = [route for route in ROUTES if route.handler is not follow]
schemathesis.serializer.alias("application/x-ndjson", "text/plain")
MODES = st.sampled_from([GenerationMode.POSITIVE, GenerationMode.NEGATIVE])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with asyncio.Runner() as runner:
        daemon = DaemonProcess(tmp_path_factory.mktemp("fuzz") / "coreplane", {})
        runner.run(daemon.start())
        yield daemon.url
        runner.run(daemon.stop())


@pytest.fixture(scope="module")
def document(url: str) -> Any:
    return schemathesis.openapi.from_url(f"{url}/openapi.json")


def shown(route: Route) -> str:
    return f"{route.method} {route.path}"


@pytest.mark.parametrize("route", ANSWERED, ids=shown)
def test_no_request_makes_the_daemon_fail(url: str, document: Any, route: Route) -> None:
    operation = document[route.path][route.method]

    @settings(
        max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(data=st.data())
    def send(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=data.draw(MODES)))
        if isinstance(case.path_parameters, dict) and "tenant" in case.path_parameters and data.draw(st.booleans()):
            case.path_parameters["tenant"] = "default"  # of others there are none
        if isinstance(case.query, dict) and "timeout" in case.query:
            case.query["timeout"] = SHORT_S
        elif "timeout" in route.query.model_fields and isinstance(case.query, dict):
            case.query |= {"timeout": SHORT_S} if {"wait", "min_revision"} & case.query.keys() else {}
        response = case.call(base_url=url, timeout=30)
        by_design = response.status_code >= 500 and response.json().get("reason") in BY_DESIGN
        assert response.status_code < 500 or by_design, response.text

    send()


def test_the_daemon_has_found_no_bug_of_its_own(url: str, document: Any) -> None:
    """Runs last: what crashed inside is counted, whatever was answered."""
    metrics = document["/metrics"]["GET"].Case().call(base_url=url, timeout=30).text
    bugs = [line for line in metrics.splitlines() if line.startswith("coreplane_bugs_total")]
    assert [line for line in bugs if not line.endswith(" 0.0")] == []

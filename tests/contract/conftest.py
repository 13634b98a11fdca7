"""Each test of a store of the projection runs on every implementation."""

import pytest

from tests.contract.projection_stores import STORES


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.timeout(900)) for name in sorted(STORES)])
def new_store(request):
    """The time is for a server that is downloaded and started for the first test."""
    return STORES[request.param](request)


@pytest.fixture
async def store(new_store):
    store = new_store()
    yield store
    await store.close()

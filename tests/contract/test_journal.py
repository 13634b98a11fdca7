"""Every journal keeps its contract; a durable log keeps it over restarts."""

import pytest

from tests.contract.log_implementations import DURABLE, LOGS, of
from tests.contract.log_suites import DurableLogSuite, JournalSuite


@pytest.fixture(params=LOGS)
def implementation(request):
    return of(request.param, request)


@pytest.fixture
async def log(implementation, tmp_path):
    log = await implementation.open(tmp_path)
    yield log
    await log.close()


class TestJournal(JournalSuite):
    pass


@pytest.mark.parametrize("implementation", DURABLE, indirect=True)
class TestDurableLog(DurableLogSuite):
    pass

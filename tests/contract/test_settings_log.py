"""Every settings log keeps its contract."""

import pytest

from tests.contract.log_implementations import LOGS
from tests.contract.log_suites import SettingsLogSuite


@pytest.fixture(params=LOGS)
async def log(request, tmp_path):
    log = await LOGS[request.param].open(tmp_path)
    yield log
    await log.close()


class TestSettingsLog(SettingsLogSuite):
    pass

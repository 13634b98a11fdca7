"""Every settings log keeps its contract."""

import pytest

from tests.contract.log_implementations import LOGS, of
from tests.contract.log_suites import SettingsLogSuite


@pytest.fixture(params=LOGS)
async def log(request, tmp_path):
    log = await of(request.param, request).open(tmp_path)
    yield log
    await log.close()


class TestSettingsLog(SettingsLogSuite):
    pass

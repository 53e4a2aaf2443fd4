"""The log in memory keeps the contract."""

import pytest
from log_contract import LogContract

from perdure.events.memory_log import MemoryLog


class TestMemoryLog(LogContract):
    @pytest.fixture
    def log(self) -> MemoryLog:
        return MemoryLog()

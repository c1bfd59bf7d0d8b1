"""One real nats-server for all deaths."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.servers import NatsServer, end, nats_server


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = nats_server(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    end(server)


_TOLD: list[str] = []


@pytest.fixture
def kills_told() -> list[str]:
    """Lines for the end of the run: where processes were killed."""
    return _TOLD


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _TOLD:
        terminalreporter.section("kills")
    for line in _TOLD:
        terminalreporter.write_line(line)

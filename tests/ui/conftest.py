"""A page over a folder, served in this process; and one browser for all tests."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from quiet_environment import TESTS

# The invented run of the report's tests, also where these are run alone.
sys.path.append(str(TESTS / "report"))

from browser import CHROMIUM, Browser
from page_server import Served


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """``serve(folder)`` answers requests for a folder."""
    served: list[Served] = []

    def begin(folder: Path, **options: object) -> Served:
        served.append(Served(folder, **options))
        return served[-1]

    yield begin
    for one in served:
        one.close()


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed: apt-get install chromium")
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()

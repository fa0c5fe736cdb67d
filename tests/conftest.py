"""What many tests share."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings
from paths import REAL_LISTS

# In the background SIGINT is ignored, and below nohup(1) SIGHUP: every program that the tests start would ignore it, too.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        with suppress(ValueError):  # not the main thread
            signal.signal(number, handler)

# The first example pays for imports, and the machine may be busy: a time limit for one example finds nothing but that.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Namespaces need root. Where there is root, a missing tool is a failure and no skip."""
    if os.geteuid() == 0:
        return
    for item in items:
        if item.get_closest_marker("e2e"):
            item.add_marker(pytest.mark.skip(reason="network namespaces need root"))


@pytest.fixture(scope="session")
def real_lists() -> list[Path]:
    """The real lists, as published."""
    lists = sorted(REAL_LISTS.glob("gfwlist-*.txt"))
    if not lists:
        pytest.skip(f"no real lists in {REAL_LISTS}; the fixtures say the same in small")
    return lists


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the person who runs the tests reaches the tool."""
    for name in ("GFWTOOLS_CONFIG", "GFWTOOLS_ROOT", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)

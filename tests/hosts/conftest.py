"""How the hosts are chosen, and the page that says what ran."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from paths import REPO
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

# What is beside a host is built with the hosts of the e2e tests.
sys.path.append(str(Path(__file__).parent.parent / "e2e"))

import debian
import page

#: Where `make test-hosts` writes what ran; nowhere where this is empty.
PAGE = os.environ.get("GFWTOOLS_HOSTS_PAGE", "")
#: `make test-hosts HOSTS="..."`: beginnings of names of hosts; only these run.
CHOSEN = os.environ.get("GFWTOOLS_HOSTS", "").split()


def pytest_sessionstart(session: pytest.Session) -> None:
    if (reason := debian.lacking()) and not hasattr(session.config, "workerinput"):
        debian.say(f"no host can be built here, so none was tested: {reason}")
        pytest.exit("", returncode=0)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the hosts that were not chosen."""
    left_out: Sequence[pytest.Item] = [
        item for item in items if CHOSEN and not any(f"[{word}" in item.nodeid for word in CHOSEN)
    ]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """A worker has a host to itself, and its events in their order."""

    class HostByHost(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _host_and_event(nodeid)[0]

    return HostByHost(config, log)


def _host_and_event(nodeid: str) -> tuple[str, str]:
    host, _, event = nodeid.partition("[")[2].removesuffix("]").partition(":")
    return host, event


_outcomes: dict[str, dict[str, str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    host, event = _host_and_event(report.nodeid)
    if report.when == "call" or report.outcome != "passed":
        _outcomes.setdefault(host, {})[event] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the page, once: not in each worker of xdist."""
    if _outcomes and PAGE and not hasattr(session.config, "workerinput"):
        path = REPO / PAGE
        path.write_text(page.text(_outcomes, path.read_text("utf-8") if path.exists() else ""), "utf-8")

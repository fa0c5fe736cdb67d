"""How the hosts are chosen, and the page that says what ran."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

# What is beside a host is built with the hosts of the e2e tests.
sys.path.append(str(Path(__file__).parent.parent / "e2e"))

import debian
import page

#: `make test-hosts HOSTS="..."`: parts of names of hosts; only these run.
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


_outcomes: dict[str, dict[str, str]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    host, _, event = report.nodeid.partition("[")[2].removesuffix("]").partition(":")
    event = event.partition("@")[0]  # xdist adds the group
    if report.when == "call" or report.outcome != "passed":
        _outcomes.setdefault(host, {})[event] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the page, where all hosts were chosen and this is no worker of xdist."""
    if _outcomes and not CHOSEN and not hasattr(session.config, "workerinput"):
        page.PAGE.write_text(page.text(_outcomes), "utf-8")

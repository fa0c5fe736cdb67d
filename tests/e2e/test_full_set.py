"""A set that takes no more: listed names are refused, no packet leaks, and one client cannot fill it in seconds."""

import sys
from collections.abc import Iterator

import pytest
from fresh_host import HERE
from lab import BLOCKED, FREE, Lab

from gfwtools.plumbing.wanted import FULL, QUESTIONS_BURST, QUESTIONS_RATE

pytestmark = pytest.mark.e2e

PAIRS = [(backend, layout) for backend in ("iptables", "nftables") for layout in ("paired", "split")]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab() as lab:
        lab.configure(*request.param)
        lab.bootstrap()
        lab.gateway.wait_for_dns()
        yield lab


def fill(lab: Lab, count: int) -> None:
    """Put ``count`` addresses into the set of IPv4, as somebody's answers would."""
    lab.gateway.run(sys.executable, HERE / "fill.py", str(count))


def words(lab: Lab) -> str:
    return lab.gateway.gfwtools("check", "host", code=None).stdout


def test_a_set_that_is_full_refuses_listed_names_until_there_is_room(lab: Lab) -> None:
    assert lab.open(lab.client, "blocked.example").startswith("10.7.0.2")
    fill(lab, FULL * 8 // 10)
    assert " of 100,000 addresses" in words(lab)
    fill(lab, FULL)
    assert "listed names are refused" in words(lab)
    lab.gateway.gfwtools("up", "--unless-down")
    lab.gateway.run("sh", "-c", "kill -HUP $(cat /run/dnsmasq/dnsmasq.pid)")  # what it has cached is in the set
    before = lab.leaked()
    assert lab.resolve(lab.client, "ok2.blocked.example") is None
    assert lab.resolve(lab.client, "free.example") == FREE
    assert lab.visit(lab.client, BLOCKED).startswith("10.7.0.2")
    assert lab.leaked() == before

    lab.gateway.gfwtools("down")
    size = int(lab.gateway.run("sh", "-c", "du -sb /var/lib/gfwtools | cut -f1").stdout)
    assert size < 3_000_000
    lab.gateway.gfwtools("up")
    assert lab.open(lab.client, "blocked.example").startswith("10.7.0.2")
    assert "listed names are refused" not in words(lab)


def test_one_client_is_answered_no_more_than_its_share(lab: Lab) -> None:
    asked, answered = lab.client.run(sys.executable, HERE / "flood.py", "192.168.7.1", "3").stdout.split()
    assert int(asked) > int(answered)
    assert int(answered) <= QUESTIONS_BURST + 10 * QUESTIONS_RATE
    assert lab.resolve(lab.gateway, "blocked.example") == BLOCKED

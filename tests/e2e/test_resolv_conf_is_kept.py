"""``update --reload`` puts back an /etc/resolv.conf that another program or a person has overwritten."""

from collections.abc import Iterator

import pytest
from lab import BLOCKED, ISP_DNS, Lab

pytestmark = pytest.mark.e2e

RESOLV_CONF = "/etc/resolv.conf"
BY_HAND = f"# mine\nnameserver {ISP_DNS}\nsearch home.example\n"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        yield lab


def cron(lab: Lab) -> str:
    """What a run of cron writes into the log."""
    done = lab.gateway.gfwtools("-q", "update", "--reload")
    assert done.stdout == ""
    return done.stderr


def test_an_overwritten_resolv_conf_is_put_back_with_one_line_in_the_log(lab: Lab) -> None:
    assert cron(lab) == ""
    lab.gateway.write(RESOLV_CONF, BY_HAND)
    assert lab.resolve(lab.gateway, "blocked.example") != BLOCKED
    line = cron(lab)
    assert line.count("\n") == 1
    assert f"{RESOLV_CONF} named {ISP_DNS}" in line
    assert lab.resolve(lab.gateway, "blocked.example") == BLOCKED
    assert "search home.example\n" in lab.gateway.read(RESOLV_CONF)
    assert cron(lab) == ""


def test_it_is_put_back_in_the_run_that_has_restarted_a_dead_dnsmasq(lab: Lab) -> None:
    lab.gateway.write(RESOLV_CONF, BY_HAND)
    kill = "kill $(cat /run/dnsmasq/dnsmasq.pid); rm -f /run/dnsmasq/dnsmasq.pid; sleep 0.3"
    lab.gateway.run("sh", "-ec", kill)
    assert RESOLV_CONF in cron(lab)
    assert lab.resolve(lab.gateway, "blocked.example") == BLOCKED


@pytest.mark.parametrize("text", ["nameserver 127.0.0.1\n", "search home.example\n", "nameserver 192.168.7.1\n"])
def test_a_resolv_conf_that_leads_to_our_dnsmasq_is_left_alone(lab: Lab, text: str) -> None:
    own = lab.gateway.read(RESOLV_CONF)
    lab.gateway.write(RESOLV_CONF, text)
    assert cron(lab) == ""
    assert lab.gateway.read(RESOLV_CONF) == text
    lab.gateway.write(RESOLV_CONF, own)


def test_it_stays_while_our_dnsmasq_does_not_answer(lab: Lab) -> None:
    own = lab.gateway.read("/etc/gfwtools/config.toml")
    lab.gateway.write("/etc/gfwtools/config.toml", own.replace('manager = "command"', 'manager = "none"'))
    lab.gateway.write(RESOLV_CONF, BY_HAND)
    kill = "kill $(cat /run/dnsmasq/dnsmasq.pid); rm -f /run/dnsmasq/dnsmasq.pid; sleep 0.3"
    lab.gateway.run("sh", "-ec", kill)
    lab.gateway.gfwtools("-q", "update", "--reload", code=1)
    assert lab.gateway.read(RESOLV_CONF) == BY_HAND
    lab.gateway.write("/etc/gfwtools/config.toml", own)


def test_teardown_gives_back_what_it_was_overwritten_with() -> None:
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        lab.gateway.write(RESOLV_CONF, BY_HAND)
        cron(lab)
        lab.gateway.gfwtools("teardown", "--yes")
        assert lab.gateway.read(RESOLV_CONF) == BY_HAND


def test_a_host_that_was_never_bootstrapped_keeps_its_resolv_conf() -> None:
    with Lab() as lab:
        lab.configure()
        lab.gateway.write(RESOLV_CONF, BY_HAND)
        lab.gateway.gfwtools("-q", "update", "--reload", code=None)
        assert lab.gateway.read(RESOLV_CONF) == BY_HAND

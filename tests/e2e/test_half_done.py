"""A bootstrap or a teardown that fails or is interrupted near its end: what ran and worked before does so after."""

import json
from collections.abc import Iterator

import pytest
from given_back import everything
from lab import BLOCKED, GATEWAY_WAN, TUNNEL, Lab

pytestmark = pytest.mark.e2e


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


BOOTSTRAP = ("bootstrap", "--interface", "wg0", "--init", "none", "--yes")
#: The command that restarts dnsmasq does once what /run/once says.
WRAP = """#!/bin/sh
if [ -e /run/once ]; then
    mv /run/once /run/now
    . /run/now
fi
exec sh /etc/restart-dns
"""
FAIL = "echo told to fail >&2; exit 1"
INTERRUPT = "kill -INT $PPID; sleep 5"
#: What listens on port 53 and which dnsmasqs there are.
DNSMASQS = "ss -Hlntu 'sport = 53 or sport = 5354' | awk '{print $1, $5}' | sort"


def configure(lab: Lab, backend: str = "iptables", layout: str = "paired") -> None:
    lab.configure(backend, layout)
    lab.gateway.write("/run/wrap", WRAP)
    change(lab, '"/etc/restart-dns"', '"/run/wrap"')


def change(lab: Lab, old: str, new: str) -> None:
    text = lab.gateway.read("/etc/gfwtools/config.toml")
    assert old in text
    lab.gateway.write("/etc/gfwtools/config.toml", text.replace(old, new))


def once(lab: Lab, what: str) -> None:
    lab.gateway.write("/run/once", what)


def dnsmasqs(lab: Lab) -> str:
    return lab.gateway.run("sh", "-c", DNSMASQS).stdout


def lines(lab: Lab) -> list[str]:
    """Tables of nft that are made again stand in another order, and it shows the size of one TCPMSS for the other's;
    iptables-save has it right."""
    return sorted(line for line in everything(lab).splitlines() if "maxseg size set" not in line)


@pytest.mark.parametrize(("what", "code"), [(FAIL, 1), (INTERRUPT, 130)])
def test_a_second_bootstrap_that_fails_leaves_what_was_up_by_the_first(what: str, code: int) -> None:
    with Lab() as lab:
        configure(lab)
        lab.gateway.gfwtools(*BOOTSTRAP)
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        before, leaked = lines(lab), lab.leaked()
        change(lab, 'backend = "iptables"', 'backend = "nftables"')
        once(lab, what)
        lab.gateway.gfwtools(*BOOTSTRAP, code=code)
        change(lab, 'backend = "nftables"', 'backend = "iptables"')
        assert lines(lab) == before
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        assert lab.leaked() == leaked
        lab.gateway.gfwtools("check", "host")


def test_a_bootstrap_that_fails_leaves_down_what_was_taken_down_by_hand(lab: Lab) -> None:
    configure(lab)
    lab.gateway.gfwtools(*BOOTSTRAP)
    lab.gateway.gfwtools("down")
    change(lab, 'layout = "paired"', 'layout = "split"')  # dnsmasq has to be restarted
    once(lab, FAIL)
    lab.gateway.gfwtools(*BOOTSTRAP, code=1)
    assert "taken down by `gfwtools down`" in lab.gateway.gfwtools("check", "host", code=1).stdout


@pytest.mark.parametrize(
    ("what", "code", "runs", "layout"),
    [(FAIL, 1, True, "paired"), (INTERRUPT, 130, True, "split"), (FAIL, 1, False, "split")],
)
def test_a_first_bootstrap_that_fails_leaves_dnsmasq_as_it_ran(what: str, code: int, runs: bool, layout: str) -> None:
    with Lab() as lab:
        configure(lab, layout=layout)
        if runs:
            lab.gateway.run("sh", "/etc/restart-dns")
        before, listening = everything(lab), dnsmasqs(lab)
        assert bool(listening) == runs
        once(lab, what)
        lab.gateway.gfwtools(*BOOTSTRAP, code=code)
        assert everything(lab) == before
        assert dnsmasqs(lab) == listening


def test_teardown_ends_a_dnsmasq_that_did_not_run_before(lab: Lab) -> None:
    configure(lab, layout="split")
    assert dnsmasqs(lab) == ""
    lab.gateway.gfwtools(*BOOTSTRAP)
    assert dnsmasqs(lab) != ""
    lab.gateway.gfwtools(*BOOTSTRAP)
    lab.gateway.gfwtools("teardown", "--yes")
    assert dnsmasqs(lab) == ""


@pytest.mark.parametrize(("what", "code"), [(FAIL, 1), (INTERRUPT, 130)])
def test_a_teardown_that_did_not_come_to_its_end_is_finished_by_the_next(what: str, code: int) -> None:
    with Lab() as lab:
        configure(lab)
        lab.gateway.run("sh", "/etc/restart-dns")
        before, listening = everything(lab), dnsmasqs(lab)
        lab.gateway.gfwtools(*BOOTSTRAP)
        once(lab, what)
        told = lab.gateway.gfwtools("teardown", "--yes", code=code).stderr
        assert "as it was before" not in told
        assert code == 130 or "run again: gfwtools teardown" in told
        lab.gateway.gfwtools("teardown", "--yes")
        assert everything(lab) == before
        assert dnsmasqs(lab) == listening
        # A third one has nothing to do.
        assert lab.gateway.gfwtools("teardown", "--yes").stdout == "nothing to undo\n"


def test_a_resolv_conf_that_cannot_be_replaced_is_told_before_anything_is_undone(lab: Lab) -> None:
    lab.configure()
    lab.bootstrap()
    mount = "cp /etc/resolv.conf /run/r; mount --bind /run/r /etc/resolv.conf"
    lab.gateway.run("sh", "-c", mount)
    told = lab.gateway.gfwtools("teardown", "--yes", code=1).stderr
    assert told == "gfwtools: /etc/resolv.conf is a mount, and cannot be replaced; run: umount /etc/resolv.conf\n"
    lab.gateway.gfwtools("check", "host")
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    lab.gateway.run("umount", "/etc/resolv.conf")
    lab.gateway.gfwtools("teardown", "--yes")
    lab.gateway.run("sh", "-c", mount)
    before = everything(lab)
    assert "umount /etc/resolv.conf" in lab.bootstrap(code=1).stderr
    assert everything(lab) == before


def test_an_edited_resolv_conf_of_ours_is_no_resolver_after_teardown(lab: Lab) -> None:
    lab.configure()
    before = lab.gateway.read("/etc/resolv.conf")
    lab.bootstrap()
    lab.gateway.run("sh", "-c", "echo 'options timeout:1' >>/etc/resolv.conf")
    told = lab.gateway.gfwtools("teardown", "--yes").stderr
    assert lab.gateway.read("/etc/resolv.conf") == before
    copy = "/var/lib/gfwtools/before/etc/resolv.conf"
    assert f"/etc/resolv.conf was changed since; what was there before is back, and the other one is {copy}" in told
    assert lab.gateway.read(copy).endswith("options timeout:1\n")


def test_check_host_says_how_a_foreign_chain_of_our_name_is_kept(lab: Lab) -> None:
    lab.configure("iptables")
    lab.gateway.run("sh", "-c", "iptables -t mangle -N GFWLIST && iptables -t mangle -A GFWLIST -d 192.0.2.1 -j DROP")
    found = json.loads(lab.gateway.gfwtools("check", "host", "--json", code=1).stdout)
    remedies = {each["remedy"] for each in found if each["name"] == "iptables mangle GFWLIST"}
    assert remedies == {"iptables -t mangle -E GFWLIST OTHER"}
    assert lab.visit(lab.gateway, BLOCKED, 1) == "error: timed out"


@pytest.mark.parametrize(("layout", "again"), [("paired", True), ("split", False)])
def test_teardown_finds_what_is_ours_though_the_state_is_lost(lab: Lab, layout: str, again: bool) -> None:
    configure(lab, layout=layout)
    lab.gateway.write("/etc/dnsmasq.conf", "user=root\nlog-facility=/run/dnsmasq.log\n")
    lab.gateway.run("sh", "/etc/restart-dns")

    def etc() -> list[str]:
        # That iptables had no base chains is known to nobody any more.
        return [line for line in everything(lab).splitlines() if "  etc/" in line or line.startswith("nameserver")]

    before = etc()
    lab.gateway.gfwtools(*BOOTSTRAP)
    lab.gateway.run("rm", "-r", "/var/lib/gfwtools")
    told = ""
    if again:  # with one file to be written, which makes a record
        lab.gateway.run("sh", "-c", "echo '# edited' >>/etc/resolv.conf")
        told = lab.gateway.gfwtools(*BOOTSTRAP).stderr
    told += lab.gateway.gfwtools("teardown", "--yes").stderr
    assert "/var/lib/gfwtools/journal was lost, and with it what was before gfwtools at /etc/dnsmasq.d/" in told
    assert etc() == before
    assert lab.open(lab.client, "free.example") == GATEWAY_WAN
    assert lab.gateway.gfwtools("teardown", "--yes").stdout == "nothing to undo\n"


def test_a_second_bootstrap_that_fails_keeps_what_the_first_has_replaced(lab: Lab) -> None:
    configure(lab)
    lab.gateway.write("/etc/dnsmasq.d/gfwlist.conf", "# by hand\n")
    lab.gateway.gfwtools(*BOOTSTRAP)
    state = "cat /etc/dnsmasq.d/gfwlist.conf /var/lib/gfwtools/journal/[0-9]*; ls /var/lib/gfwtools"
    before = lab.gateway.run("sh", "-c", state).stdout
    lab.gateway.write("/etc/list.txt", lab.gateway.read("/etc/list.txt") + "||new.example\n")
    change(lab, 'layout = "paired"', 'layout = "split"')
    once(lab, FAIL)
    lab.gateway.gfwtools(*BOOTSTRAP, code=1)
    assert lab.gateway.run("sh", "-c", state).stdout == before
    change(lab, 'layout = "split"', 'layout = "paired"')
    # The same without a state: what is there is not taken for something that was not.
    lab.gateway.run("rm", "/var/lib/gfwtools/state.json")
    change(lab, 'layout = "paired"', 'layout = "split"')
    once(lab, FAIL)
    lab.gateway.gfwtools(*BOOTSTRAP, code=1)
    assert "ipset=/blocked.example/" in lab.gateway.read("/etc/dnsmasq.d/gfwlist.conf")
    assert "blocked.example" in lab.gateway.read("/var/lib/gfwtools/gfwlist.list")


def test_a_resolv_conf_that_became_a_link_is_one_after_a_bootstrap_that_fails(lab: Lab) -> None:
    configure(lab)
    lab.gateway.gfwtools(*BOOTSTRAP)
    lab.gateway.run("sh", "-c", "cp /etc/resolv.conf /run/other.conf; ln -sfn /run/other.conf /etc/resolv.conf")
    once(lab, FAIL)
    change(lab, 'layout = "paired"', 'layout = "split"')
    lab.gateway.gfwtools(*BOOTSTRAP, code=1)
    assert lab.gateway.run("readlink", "/etc/resolv.conf").stdout == "/run/other.conf\n"


def test_a_dnsmasq_that_answers_elsewhere_runs_all_the_same_and_is_not_ended(lab: Lab) -> None:
    configure(lab)
    lab.gateway.write("/etc/dnsmasq.conf", "user=root\nport=5399\n")
    lab.gateway.run("sh", "/etc/restart-dns")
    lab.gateway.write("/etc/dnsmasq.conf", "user=root\n")  # its owner has followed our advice, and not restarted it
    lab.gateway.gfwtools(*BOOTSTRAP)
    lab.gateway.gfwtools("teardown", "--yes")
    assert "0.0.0.0:53" in dnsmasqs(lab)

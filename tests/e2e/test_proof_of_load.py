"""A verdict rests on what the running dnsmasq has read, not on what was written or restarted."""

import itertools
import json
import re

import pytest
from fresh_host import RESTART
from lab import POISON, TUNNEL, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
#: A host with Debian's package has it, whoever starts dnsmasq.
DEFAULTS = "CONFIG_DIR=/etc/dnsmasq.d,.dpkg-dist,.dpkg-old,.dpkg-new\n"
#: Nothing but the program and its own file: no ``-7``.
PLAIN_RESTART = re.sub(r"CONFIG_DIR=\n.*\n", "CONFIG_DIR=\n", RESTART)
#: The same with a file of its own that names no folder.
ELSEWHERE = PLAIN_RESTART.replace("--conf-file=/etc/dnsmasq.conf", "--conf-file=/etc/elsewhere.conf")
OWN_CONF = "user=root\nno-resolv\nserver=192.0.2.53\nlisten-address=127.0.0.1,192.168.7.1\nbind-interfaces\n"


def plain(lab: Lab, backend: str, layout: str) -> None:
    """A host whose restart command starts dnsmasq without a folder, and that has Debian's defaults all the same."""
    lab.configure(backend, layout)
    lab.gateway.write("/etc/default/dnsmasq", DEFAULTS)
    lab.gateway.write("/etc/restart-dns", PLAIN_RESTART)


def elsewhere(lab: Lab, backend: str, layout: str) -> None:
    """A host that was bootstrapped, and whose dnsmasq is from now on started with another file."""
    plain(lab, backend, layout)
    lab.bootstrap()
    lab.gateway.write("/etc/elsewhere.conf", OWN_CONF)
    lab.gateway.write("/etc/restart-dns", ELSEWHERE)


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_bootstrap_has_a_dnsmasq_that_is_started_plainly_read_the_folder(backend: str, layout: str) -> None:
    with Lab() as lab:
        plain(lab, backend, layout)
        lab.bootstrap()
        assert lab.open(lab.gateway, "blocked.example") == TUNNEL
        assert "conf-dir=/etc/dnsmasq.d/,*.conf" in lab.gateway.read("/etc/dnsmasq.conf")


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_bootstrap_fails_where_the_dnsmasq_that_runs_has_not_read_our_files(backend: str, layout: str) -> None:
    with Lab() as lab:
        plain(lab, backend, layout)
        lab.gateway.write("/etc/elsewhere.conf", OWN_CONF)
        lab.gateway.write("/etc/restart-dns", ELSEWHERE)
        told = lab.bootstrap(code=1)
        assert "blocked sites go through the tunnel" not in told.stdout
        assert "has not read the current /etc/dnsmasq.d/gfwlist.conf" in told.stderr
        assert "conf-dir=/etc/dnsmasq.d/,*.conf to /etc/elsewhere.conf" in told.stderr


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_an_update_that_the_dnsmasq_does_not_read_fails_and_goes_back(backend: str, layout: str) -> None:
    with Lab() as lab:
        elsewhere(lab, backend, layout)
        before = lab.gateway.read("/var/lib/gfwtools/gfwlist.domains")
        lab.gateway.write("/etc/list.txt", lab.gateway.read("/etc/list.txt") + "||new.example\n")
        lab.gateway.run("sh", "/etc/restart-dns")
        told = lab.gateway.gfwtools("update", "--reload", code=1).stderr
        assert "has not read the current /etc/" in told
        assert "does not read the old files either" in told
        assert lab.gateway.read("/var/lib/gfwtools/gfwlist.domains") == before


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_every_command_that_judges_says_that_dnsmasq_has_not_read_our_files(backend: str, layout: str) -> None:
    with Lab() as lab:
        elsewhere(lab, backend, layout)
        lab.gateway.run("sh", "/etc/restart-dns")
        remedy = "conf-dir=/etc/dnsmasq.d/,*.conf to /etc/elsewhere.conf"
        host = json.loads(lab.gateway.gfwtools("check", "host", "--json", code=1).stdout)
        bad = [piece for piece in host if "has not read" in piece["detail"]]
        assert [piece["name"] for piece in bad] == ["list of policy gfwlist"]
        assert remedy in bad[0]["remedy"]
        live = json.loads(lab.gateway.gfwtools("check", "domain", "--live", "--json", "blocked.example", code=1).stdout)
        assert live["broken"] == "generation"
        assert remedy in next(link["remedy"] for link in live["links"] if link["name"] == "generation")
        status = json.loads(lab.gateway.gfwtools("status", "--json").stdout)
        assert "list of policy gfwlist" in [finding["name"] for finding in status["findings"]]


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_a_list_that_dnsmasq_has_not_read_is_seen_until_it_is_reloaded(backend: str, layout: str) -> None:
    with Lab() as lab:
        plain(lab, backend, layout)
        lab.bootstrap()
        assert "has not read" not in lab.gateway.gfwtools("check", "host").stdout
        lab.gateway.write("/etc/list.txt", lab.gateway.read("/etc/list.txt") + "||new.example\n")
        lab.gateway.gfwtools("update")
        found = lab.gateway.gfwtools("check", "host", code=1).stdout
        assert "has not read" in found
        assert "gfwtools update --reload" in found
        lab.gateway.gfwtools("update", "--reload")
        assert "has not read" not in lab.gateway.gfwtools("check", "host").stdout


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_an_update_with_nothing_new_repairs_a_dnsmasq_that_was_started_otherwise(backend: str, layout: str) -> None:
    with Lab() as lab:
        plain(lab, backend, layout)
        lab.bootstrap()
        lab.gateway.write("/etc/elsewhere.conf", OWN_CONF)
        lab.gateway.write("/etc/by-hand", ELSEWHERE)
        lab.gateway.run("sh", "/etc/by-hand")
        assert lab.resolve(lab.gateway, "blocked.example") == POISON
        lab.gateway.gfwtools("update", "--reload")
        assert lab.open(lab.gateway, "blocked.example") == TUNNEL


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_an_update_with_nothing_new_fails_where_the_restart_does_not_help(backend: str, layout: str) -> None:
    with Lab() as lab:
        elsewhere(lab, backend, layout)
        lab.gateway.run("sh", "/etc/restart-dns")
        told = lab.gateway.gfwtools("update", "--reload", code=1).stderr
        assert "has not read the current /etc/dnsmasq.d/gfwlist.conf" in told
        assert "dnsmasq does not read the old files either" in told


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_a_file_that_was_deleted_is_written_and_read_again(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.bootstrap()
        lab.gateway.run("sh", "-ec", "rm /etc/dnsmasq.d/gfwlist.conf; sh /etc/restart-dns")
        assert lab.resolve(lab.client, "blocked.example") == POISON
        lab.gateway.gfwtools("update", "--reload")
        assert lab.open(lab.client, "blocked.example") == TUNNEL


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_second_dnsmasq_with_an_older_configuration_is_seen(backend: str) -> None:
    with Lab() as lab:
        plain(lab, backend, "split")
        lab.bootstrap()
        text = lab.gateway.read("/etc/gfwtools/config.toml")
        lab.gateway.write("/etc/gfwtools/config.toml", text + 'upstream = ["8.8.8.8", "8.8.4.4"]\n')
        lab.gateway.gfwtools("update")
        pieces = json.loads(lab.gateway.gfwtools("check", "host", "--json", code=1).stdout)
        assert [piece["name"] for piece in pieces if "has not read" in piece["detail"]] == ["second dnsmasq of gfwlist"]

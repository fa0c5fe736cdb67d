"""Another dnsmasq on the host, such as libvirt's, keeps its network, and ours works beside it."""

import itertools

import pytest
from given_back import everything
from lab import BLOCKED, FREE, GATEWAY_LAN, TUNNEL, Lab
from other_dnsmasq import ADDRESS, BINDS, BRIDGE, LIBVIRT_CONF, asked_at, libvirt, make_network, restart_libvirt

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))


def both_answer(lab: Lab) -> None:
    """A client of the LAN and a virtual machine reach blocked sites through the tunnel."""
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    assert asked_at(lab, ADDRESS, "blocked.example") == BLOCKED
    assert asked_at(lab, ADDRESS, "free.example") == FREE


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
@pytest.mark.parametrize("binds", BINDS)
def test_a_gateway_beside_libvirt_works_and_both_survive_restarts_of_either(
    backend: str, layout: str, binds: str
) -> None:
    with Lab() as lab:
        libvirt(lab, binds)
        lab.configure(backend, layout)
        shown = lab.bootstrap("--gateway").stderr
        assert f"does not listen at {ADDRESS} ({BRIDGE}): dnsmasq (process " in shown
        assert f"{LIBVIRT_CONF}) answers there; to choose the addresses yourself, set dns.listen" in shown
        both_answer(lab)
        lab.gateway.run("sh", "/etc/restart-dns")
        both_answer(lab)
        restart_libvirt(lab)
        both_answer(lab)
        lab.bootstrap("--gateway")
        both_answer(lab)
        lab.gateway.gfwtools("teardown", "--yes")
        restart_libvirt(lab)
        assert asked_at(lab, ADDRESS, "free.example") == FREE


def test_the_whole_host_is_ok_beside_libvirt() -> None:
    with Lab() as lab:
        libvirt(lab)
        lab.configure()
        lab.bootstrap("--gateway")
        assert "pieces are OK" in lab.gateway.gfwtools("check", "host").stdout


@pytest.mark.parametrize(
    ("bridge", "command"),
    [
        (
            "lxcbr0",
            "--conf-file=/dev/null -u root --strict-order --bind-interfaces --pid-file=/run/lxc/dnsmasq.pid "
            "--listen-address 10.0.3.1 --except-interface=lo --interface=lxcbr0",
        ),
        (
            "ap0",
            "--conf-file=/dev/null --no-hosts --user=root --bind-interfaces --except-interface=lo --clear-on-reload "
            "--strict-order --listen-address=10.0.3.1 --pid-file=/run/nm-dnsmasq-ap0.pid "
            "--conf-dir=/etc/NetworkManager/dnsmasq-shared.d",
        ),
    ],
    ids=["lxc", "NetworkManager"],
)
def test_the_dnsmasq_of_lxc_and_of_a_shared_connection_keeps_its_network(bridge: str, command: str) -> None:
    with Lab() as lab:
        make_network(lab, bridge, "10.0.3.1")
        lab.gateway.run("mkdir", "-p", "/run/lxc", "/etc/NetworkManager/dnsmasq-shared.d")
        lab.gateway.write("/etc/dnsmasq.conf", "user=root\nlisten-address=127.0.0.1\nbind-interfaces\n")
        lab.gateway.run("sh", "/etc/restart-dns")
        lab.gateway.run("dnsmasq", *command.split())
        lab.configure()
        assert f"does not listen at 10.0.3.1 ({bridge}): dnsmasq" in lab.bootstrap("--gateway").stderr
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        assert asked_at(lab, "10.0.3.1", "blocked.example") == BLOCKED


def test_a_bridge_of_docker_without_a_resolver_is_listened_at() -> None:
    with Lab() as lab:
        make_network(lab, "docker0", "172.17.0.1")
        lab.configure()
        lab.bootstrap("--gateway")
        assert asked_at(lab, "172.17.0.1", "blocked.example") == BLOCKED
        assert lab.open(lab.client, "blocked.example") == TUNNEL


def test_another_dnsmasq_at_the_lans_own_address_is_a_problem_with_its_file() -> None:
    with Lab() as lab:
        lab.gateway.run(
            "sh", "-c", "[ -e /run/dnsmasq/dnsmasq.pid ] && kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.2"
        )
        own = f"user=root\nlisten-address={GATEWAY_LAN}\nbind-interfaces\nexcept-interface=lo\npid-file=/run/own.pid\n"
        lab.gateway.write("/etc/own-dns.conf", own)
        lab.gateway.run("dnsmasq", "--conf-file=/etc/own-dns.conf")
        lab.configure()
        shown = lab.bootstrap("--gateway", code=1).stderr
        assert "port 53 is held by dnsmasq (process " in shown
        assert f", /etc/own-dns.conf) at {GATEWAY_LAN}; set dns.listen" in shown
        assert "nothing was changed" in shown


def test_dns_listen_with_an_address_of_another_dnsmasq_is_a_problem_with_its_key() -> None:
    with Lab() as lab:
        libvirt(lab)
        lab.configure()
        text = lab.gateway.read("/etc/gfwtools/config.toml")
        listen = f'[dns]\nlisten = ["{GATEWAY_LAN}", "{ADDRESS}"]\n'
        lab.gateway.write("/etc/gfwtools/config.toml", text.replace("[dns]\n", listen))
        shown = lab.bootstrap("--gateway", code=1).stderr
        assert f"{LIBVIRT_CONF}) at {ADDRESS}; take it out of dns.listen" in shown


@pytest.mark.parametrize("words", ["", "listen-address=127.0.0.1\nbind-interfaces\n"], ids=["everywhere", "loopback"])
def test_a_second_dnsmasq_where_ours_must_listen_is_named_before_any_change(words: str) -> None:
    with Lab() as lab:
        end = "[ ! -e /run/dnsmasq/dnsmasq.pid ] || kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.3"
        lab.gateway.run("sh", "-c", f"{end}; rm -f /run/dnsmasq/dnsmasq.pid")
        lab.gateway.write("/etc/own-dns.conf", f"user=root\nno-resolv\n{words}pid-file=/run/own.pid\n")
        lab.gateway.run("dnsmasq", "--conf-file=/etc/own-dns.conf")
        lab.configure()
        before = everything(lab)
        shown = lab.bootstrap("--gateway", code=1).stderr
        pid = lab.gateway.read("/run/own.pid").strip()
        assert f"port 53 is held by dnsmasq (process {pid}, /etc/own-dns.conf) at " in shown
        assert f"kill {pid}; or give it an address of its own" in shown
        assert "nothing was changed" in shown
        assert everything(lab) == before


def test_a_dnsmasq_of_the_users_own_that_reads_the_folder_is_the_hosts() -> None:
    with Lab() as lab:
        end = "[ ! -e /run/dnsmasq/dnsmasq.pid ] || kill $(cat /run/dnsmasq/dnsmasq.pid); sleep 0.3"
        lab.gateway.run("sh", "-c", f"{end}; rm -f /run/dnsmasq/dnsmasq.pid")
        lab.gateway.write("/etc/own-dns.conf", "user=root\nconf-dir=/etc/dnsmasq.d/,*.conf\npid-file=/run/own.pid\n")
        restart = "#!/bin/sh\n[ ! -e /run/own.pid ] || kill $(cat /run/own.pid)\nsleep 0.5\nexec dnsmasq -C /etc/own-dns.conf\n"
        lab.gateway.write("/etc/restart-dns", restart)
        lab.gateway.run("sh", "/etc/restart-dns")
        lab.configure()
        lab.bootstrap("--gateway")
        assert lab.open(lab.client, "blocked.example") == TUNNEL

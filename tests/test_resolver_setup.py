"""dnsmasq as the host's resolver: what is found on a host, what is written there, and that all of it goes back."""

import os
import shutil
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from journals import put
from recorder import Recorder
from trees import DEBIAN_SCRIPT, Tree, host, plant, tree_of

from gfwtools.config.load import loads
from gfwtools.config.model import Config
from gfwtools.dnsmasq.folders import make as make_folders
from gfwtools.dnsmasq.manager import restart_command
from gfwtools.setup import files
from gfwtools.setup.plan import Planned
from gfwtools.setup.renewal import renew
from gfwtools.setup.resolver_edits import edits, leave_steps, steps
from gfwtools.setup.resolver_facts import ResolverFacts, observe
from gfwtools.system.commands import Command, System

ADDRESSES = """[
 {"ifname": "lo", "addr_info": [{"local": "127.0.0.1", "prefixlen": 8, "scope": "host"}]},
 {"ifname": "wan0", "addr_info": [{"local": "198.51.100.7", "prefixlen": 24, "scope": "global"},
                                  {"local": "fe80::7", "prefixlen": 64, "scope": "link"}]},
 {"ifname": "lan0", "addr_info": [{"local": "192.168.7.1", "prefixlen": 24, "scope": "global"}]},
 {"ifname": "wg0", "addr_info": [{"local": "10.9.9.2", "prefixlen": 24, "scope": "global"}]}
]"""
HOST = Recorder(
    {
        ("ip", "-j", "address"): ADDRESSES,
        (
            "ip",
            "-4",
            "-j",
            "route",
            "show",
            "default",
        ): '[{"dst": "default", "gateway": "198.51.100.1", "dev": "wan0"}]',
    }
)
SNIPPET = "/etc/dnsmasq.d/00-gfwtools.conf"
HOOK = "etc/dhcp/dhclient-enter-hooks.d/zz-gfwtools"


def written(config: Config, runner: Recorder = HOST) -> dict[str, str]:
    return {edit.path: edit.data.decode() for edit in edits(config, observe(config, runner))}


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def snippet(config: Config, runner: Recorder = HOST) -> list[str]:
    return lines(written(config, runner)[SNIPPET])


# ---------------------------------------------------------------- the ISP's resolvers


def resolvers(config: Config) -> list[str]:
    return [str(resolver.address) for resolver in observe(config, HOST).resolvers]


def test_the_configured_resolvers_come_before_those_that_are_found(tmp_path: Path) -> None:
    tree = {"etc/resolv.conf": "nameserver 203.0.113.1\n"}
    assert resolvers(host(tmp_path, tree, '[dns]\nresolvers = ["203.0.113.9"]\n')) == ["203.0.113.9"]


def test_resolv_conf_comes_before_the_files_of_others(tmp_path: Path) -> None:
    tree = {"etc/resolv.conf": "nameserver 203.0.113.1\n", "run/systemd/resolve/resolv.conf": "nameserver 203.0.113.2"}
    assert resolvers(host(tmp_path, tree)) == ["203.0.113.1"]


@pytest.mark.parametrize(
    "path", ["run/systemd/resolve/resolv.conf", "run/NetworkManager/no-stub-resolv.conf", "run/dnsmasq/resolv.conf"]
)
def test_behind_a_stub_the_real_resolvers_are_found(tmp_path: Path, path: str) -> None:
    tree = {"etc/resolv.conf": "nameserver 127.0.0.53\n", path: "nameserver 203.0.113.2\nnameserver 203.0.113.3\n"}
    assert resolvers(host(tmp_path, tree)) == ["203.0.113.2", "203.0.113.3"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("var/lib/dhcp/dhclient.wan0.leases", "lease {\n  option domain-name-servers 203.0.113.4, 203.0.113.5;\n}\n"),
        ("run/systemd/netif/leases/2", "ADDRESS=198.51.100.7\nDNS=203.0.113.4 203.0.113.5\n"),
    ],
)
def test_a_lease_tells_the_resolvers_where_nothing_else_does(tmp_path: Path, path: str, text: str) -> None:
    assert resolvers(host(tmp_path, {path: text})) == ["203.0.113.4", "203.0.113.5"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.1.1", "::1", "192.168.7.1", "0.0.0.0", "fe80::1%wan0", "oops"])
def test_neither_this_host_nor_a_link_local_address_is_a_resolver(tmp_path: Path, address: str) -> None:
    tree = {"etc/resolv.conf": f"nameserver {address}\nnameserver 203.0.113.1\n"}
    assert resolvers(host(tmp_path, tree)) == ["203.0.113.1"]


def test_a_link_is_followed_below_the_root(tmp_path: Path) -> None:
    tree = {"etc/resolv.conf": "-> /run/x/resolv.conf", "run/x/resolv.conf": "nameserver 203.0.113.1\n"}
    facts = observe(host(tmp_path, tree), HOST)
    assert (facts.link, facts.nameservers) == ("/run/x/resolv.conf", ("203.0.113.1",))


# ---------------------------------------------------------------- who manages resolv.conf


@pytest.mark.parametrize(
    ("tree", "managers"),
    [
        ({}, ()),
        ({"etc/resolv.conf": "-> ../run/systemd/resolve/stub-resolv.conf"}, ("systemd-resolved",)),
        ({"run/systemd/resolve/resolv.conf": ""}, ()),
        ({"etc/NetworkManager/NetworkManager.conf": ""}, ("NetworkManager",)),
        ({"etc/NetworkManager/dispatcher.d/chrony": ""}, ()),
        ({"etc/dhcpcd.conf": ""}, ("dhcpcd",)),
        ({"etc/resolvconf.conf": ""}, ("openresolv",)),
        ({"etc/resolvconf/resolv.conf.d/head": ""}, ("resolvconf",)),
        ({"etc/resolvconf/update.d/dnsmasq": ""}, ()),
        ({"etc/dhcp/dhclient.conf": ""}, ("dhclient",)),
    ],
)
def test_a_manager_is_known_by_what_only_it_has(tmp_path: Path, tree: Tree, managers: tuple[str, ...]) -> None:
    assert observe(host(tmp_path, tree), HOST).managers == managers


def test_a_resolved_that_runs_without_the_link_is_known_by_the_port_it_holds(tmp_path: Path) -> None:
    line = 'udp UNCONN 0 0 127.0.0.53%lo:53 0.0.0.0:* users:(("systemd-resolve",pid=77,fd=13))\n'
    runner = Recorder({("ss", "-H", "-lntup", "sport = 53"): line})
    assert observe(host(tmp_path, {}), runner).managers == ("systemd-resolved",)


@pytest.mark.parametrize(
    ("tree", "path", "expected"),
    [
        (
            {"etc/resolv.conf": "-> ../run/systemd/resolve/stub-resolv.conf"},
            "/etc/systemd/resolved.conf.d/90-gfwtools.conf",
            ["[Resolve]", "DNSStubListener=no", "DNS=127.0.0.1", "Domains=~.", "Cache=no"],
        ),
        (
            {"run/NetworkManager/x": ""},
            "/etc/NetworkManager/conf.d/90-gfwtools.conf",
            ["[main]", "dns=none"],
        ),
        (
            {"etc/dhcpcd.conf": "duid\n", "etc/dhcpcd.enter-hook": "echo mine\n"},
            "/etc/dhcpcd.enter-hook",
            ["echo mine", 'skip_hooks="$skip_hooks resolv.conf"'],
        ),
        (
            {"etc/resolvconf.conf": "resolvconf=YES"},
            "/etc/resolvconf.conf",
            ["resolvconf=YES", "libc=NO", "dnsmasq_resolv=/run/dnsmasq/resolv.conf"],
        ),
        (
            {"etc/resolvconf/resolv.conf.d/head": "# head\n"},
            "/etc/resolvconf/resolv.conf.d/head",
            ["nameserver 127.0.0.1"],
        ),
        (
            {"etc/dhcp/dhclient.conf": ""},
            "/etc/dhcp/dhclient-enter-hooks.d/zz-gfwtools",
            ["make_resolv_conf() { :; }"],
        ),
    ],
)
def test_each_manager_is_told_in_its_own_way(tmp_path: Path, tree: Tree, path: str, expected: list[str]) -> None:
    assert lines(written(host(tmp_path, tree))[path]) == expected


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("etc/dhcpcd.conf", "nohook resolv.conf\ninterface eth0\n"),
        ("etc/dhcpcd.conf", "nohook lookup-hostname, resolv.conf\n"),
        ("etc/resolvconf.conf", "resolvconf=NO\n"),
        ("etc/resolvconf.conf", "libc=NO\ndnsmasq_resolv=/run/isp.conf\n"),
    ],
)
def test_a_manager_that_has_been_told_already_is_left_alone(tmp_path: Path, path: str, text: str) -> None:
    assert f"/{path}" not in written(host(tmp_path, {path: text}))


def test_dhcpcd_told_for_one_interface_alone_is_told_again(tmp_path: Path) -> None:
    tree = {"etc/dhcpcd.conf": "interface eth0\nnohook resolv.conf\n"}
    assert "/etc/dhcpcd.enter-hook" in written(host(tmp_path, tree))


# ---------------------------------------------------------------- who reads the folder

READS = [
    {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d\n"},
    {"etc/dnsmasq.conf": " conf-dir = /etc/dnsmasq.d/,*.conf # all\n"},
    {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d,.bak,.dpkg-old\n"},
    {"etc/dnsmasq.conf": 'conf-dir="/etc/dnsmasq.d",*.conf\n'},
    {"etc/dnsmasq.conf": "conf-dir=/etc/../etc/./dnsmasq.d//\n"},
    {"etc/dnsmasq.conf": "conf-dir=/etc/link\n", "etc/link": "-> dnsmasq.d", "etc/dnsmasq.d/user.conf": ""},
    {"etc/dnsmasq.conf": "conf-file=/etc/more.conf\n", "etc/more.conf": "conf-dir=/etc/dnsmasq.d\n"},
    {**DEBIAN_SCRIPT, "etc/default/dnsmasq": "CONFIG_DIR=/etc/dnsmasq.d,.dpkg-dist,.dpkg-old,.dpkg-new\n"},
    {
        "usr/share/dnsmasq/systemd-helper": DEBIAN_SCRIPT["etc/init.d/dnsmasq"],
        "usr/lib/systemd/system/dnsmasq.service": "[Service]\nExecStart=/usr/share/dnsmasq/systemd-helper exec\n",
        "etc/default/dnsmasq": "CONFIG_DIR=/etc/dnsmasq.d\n",
    },
    {
        "etc/systemd/system/dnsmasq.service": "[Service]\nExecStart=/usr/bin/dnsmasq -k\n",
        "etc/systemd/system/dnsmasq.service.d/x.conf": (
            "[Service]\nExecStart=\nExecStart=-/usr/bin/dnsmasq -k --conf-dir=/etc/dnsmasq.d\n"
        ),
    },
    {**DEBIAN_SCRIPT, "etc/default/dnsmasq": 'ENABLED=1\nCONFIG_DIR="/etc/dnsmasq.d" # all\n'},
]
READS_NOT = [
    {"etc/default/dnsmasq": "CONFIG_DIR=/etc/dnsmasq.d\n"},  # nobody reads it
    {
        **DEBIAN_SCRIPT,
        "etc/default/dnsmasq": "CONFIG_DIR=/etc/dnsmasq.d\n",
        "lib/systemd/system/dnsmasq.service": "[Service]\nExecStart=/usr/bin/dnsmasq -k --user=dnsmasq\n",
    },
    {},
    {"etc/dnsmasq.conf": "#conf-dir=/etc/dnsmasq.d\n"},
    {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d,.conf\n"},
    {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d,*.dns\n"},
    {"etc/dnsmasq.conf": "conf-dir=/etc/dnsmasq.d2\n"},
    {"etc/dnsmasq.conf": 'conf-dir="/etc/dnsmasq.d,*.conf"\n'},
    {**DEBIAN_SCRIPT, "etc/default/dnsmasq": "#CONFIG_DIR=/etc/dnsmasq.d\n"},
    {**DEBIAN_SCRIPT, "etc/default/dnsmasq": "CONFIG_DIR=\n"},
]


@pytest.mark.parametrize("tree", READS)
def test_where_the_folder_is_read_dnsmasq_conf_stays(tmp_path: Path, tree: Tree) -> None:
    assert "/etc/dnsmasq.conf" not in written(host(tmp_path, tree))


@pytest.mark.parametrize("tree", READS_NOT)
def test_where_nothing_reads_the_folder_a_line_is_appended(tmp_path: Path, tree: Tree) -> None:
    text = written(host(tmp_path, tree))["/etc/dnsmasq.conf"]
    assert text.startswith(tree.get("etc/dnsmasq.conf", ""))
    assert lines(text)[-1] == "conf-dir=/etc/dnsmasq.d/,*.conf"


def test_a_command_of_the_users_own_is_not_counted_on_to_name_the_folder(tmp_path: Path) -> None:
    tree = {**DEBIAN_SCRIPT, "etc/default/dnsmasq": "CONFIG_DIR=/etc/dnsmasq.d\n"}
    config = host(tmp_path, tree, '[dns]\nmanager = "command"\nrestart = ["dnsmasq"]\n')
    assert lines(written(config)["/etc/dnsmasq.conf"]) == ["conf-dir=/etc/dnsmasq.d/,*.conf"]


def test_a_last_line_without_its_end_is_ended_before_ours(tmp_path: Path) -> None:
    text = written(host(tmp_path, {"etc/dnsmasq.conf": "domain=lan"}))["/etc/dnsmasq.conf"]
    assert lines(text) == ["domain=lan", "conf-dir=/etc/dnsmasq.d/,*.conf"]


# ---------------------------------------------------------------- the snippet


def test_a_host_listens_on_loopback_alone(tmp_path: Path) -> None:
    found = snippet(host(tmp_path, {"etc/resolv.conf": "nameserver 203.0.113.1\n"}))
    assert found == [
        "listen-address=127.0.0.1",
        "listen-address=::1",
        "bind-dynamic",
        "resolv-file=/var/lib/gfwtools/resolv.conf",
        "cache-size=4096",
        "server=/use-application-dns.net/",
    ]


def listens(config: Config, runner: Recorder = HOST) -> list[str]:
    return [line.partition("=")[2] for line in snippet(config, runner) if line.startswith("listen-address=")]


def test_a_gateway_names_the_lans_interface_and_neither_the_wans_nor_the_tunnels(tmp_path: Path) -> None:
    found = snippet(host(tmp_path, {}, "[host]\ngateway = true\n"))
    assert [line for line in found if line.startswith("interface=")] == ["interface=lan0"]
    assert [line for line in found if line.startswith("listen-")] == ["listen-address=127.0.0.1", "listen-address=::1"]


@pytest.mark.parametrize("own", ["bind-interfaces\ninterface=lan0\n", "listen-address=192.168.7.1\n"])
def test_where_the_users_lines_decide_by_address_no_interface_is_named(tmp_path: Path, own: str) -> None:
    found = snippet(host(tmp_path, {"etc/dnsmasq.conf": own}, "[host]\ngateway = true\n"))
    assert not any(line.startswith("interface=") for line in found)


def test_configured_addresses_take_the_place_of_those_of_the_lan(tmp_path: Path) -> None:
    text = '[host]\ngateway = true\n[dns]\nlisten = ["192.168.9.1"]\n'
    assert listens(host(tmp_path, {}, text)) == ["127.0.0.1", "::1", "192.168.9.1"]


def test_a_gateway_with_one_leg_listens_on_its_private_address(tmp_path: Path) -> None:
    one = '[{"ifname": "eth0", "addr_info": [{"local": "192.168.1.2", "prefixlen": 24, "scope": "global"}]}]'
    runner = Recorder(
        {
            ("ip", "-j", "address"): one,
            ("ip", "-4", "-j", "route", "show", "default"): '[{"dst": "default", "dev": "eth0"}]',
        }
    )
    assert listens(host(tmp_path, {}, "[host]\ngateway = true\n"), runner) == ["127.0.0.1", "::1", "192.168.1.2"]


def test_a_dnsmasq_that_serves_a_lan_everywhere_goes_on_doing_so(tmp_path: Path) -> None:
    assert listens(host(tmp_path, {"etc/dnsmasq.conf": "dhcp-range=192.168.7.50,192.168.7.99\n"})) == []


def test_with_the_users_bind_interfaces_only_addresses_that_are_there_are_named(tmp_path: Path) -> None:
    found = snippet(host(tmp_path, {"etc/dnsmasq.conf": "bind-interfaces\ninterface=lan0\n"}))
    assert "listen-address=127.0.0.1" in found
    assert "listen-address=::1" not in found
    assert "bind-dynamic" not in found


@pytest.mark.parametrize(
    ("line", "absent"),
    [
        ("listen-address=127.0.0.1,192.168.7.1", "listen-address=127.0.0.1"),
        ("bind-dynamic", "bind-dynamic"),
        ("no-resolv", "no-resolv"),
        ("cache-size=100", "cache-size=4096"),
        ("server=203.0.113.7", "server=203.0.113.1"),
        ("resolv-file=/etc/resolv.isp", "no-resolv"),
        ("local=/use-application-dns.net/", "server=/use-application-dns.net/"),
        ("address=/use-application-dns.net/", "server=/use-application-dns.net/"),
    ],
)
def test_what_the_users_configuration_says_is_not_said_again(tmp_path: Path, line: str, absent: str) -> None:
    tree = {"etc/resolv.conf": "nameserver 203.0.113.1\n", "etc/dnsmasq.d/user.conf": f"{line}\n"}
    assert absent not in snippet(host(tmp_path, tree))


# ---------------------------------------------------------------- the file that dnsmasq follows

COPY, DHCPCD_COPY = "/var/lib/gfwtools/resolv.conf", "/var/lib/dhcpcd/gfwtools.conf"
NETWORK_MANAGER: Tree = {
    "run/NetworkManager/no-stub-resolv.conf": "nameserver 203.0.113.1\n",
    "etc/resolv.conf": "nameserver 203.0.113.1\n",
}
RESOLVED: Tree = {
    "etc/resolv.conf": "-> ../run/systemd/resolve/stub-resolv.conf",
    "run/systemd/resolve/stub-resolv.conf": "nameserver 127.0.0.53\n",
    "run/systemd/resolve/resolv.conf": "nameserver 203.0.113.1\n",
}
RESOLVCONF: Tree = {
    "etc/resolv.conf": "nameserver 203.0.113.1\n",
    "etc/resolvconf/interface-order": "",
    "sbin/resolvconf": "",
    "run/dnsmasq/resolv.conf": "nameserver 203.0.113.1\n",
}
OPENRESOLV: Tree = {
    "etc/resolv.conf": "# Generated by resolvconf\nnameserver 203.0.113.1\n",
    "etc/resolvconf.conf": "dnsmasq_resolv=/var/run/dnsmasq/resolv.conf\n",
    "sbin/resolvconf": "",
}
DHCLIENT: Tree = {
    "etc/resolv.conf": "nameserver 203.0.113.1\n",
    "etc/dhcp/dhclient.conf": "",
    "var/lib/dhcp/dhclient.wan0.leases": "option domain-name-servers 203.0.113.1;\n",
}
DHCPCD: Tree = {
    "etc/resolv.conf": "# Generated by dhcpcd from wan0.dhcp\nnameserver 203.0.113.1\n",
    "etc/dhcpcd.conf": "",
}
STATIC: Tree = {**DHCLIENT, "etc/resolv.conf": "nameserver 203.0.113.9\n"}


@pytest.mark.parametrize(
    ("tree", "followed"),
    [
        (NETWORK_MANAGER, "/run/NetworkManager/no-stub-resolv.conf"),
        (RESOLVED, "/run/systemd/resolve/resolv.conf"),
        (RESOLVCONF, "/run/dnsmasq/resolv.conf"),
        (OPENRESOLV, "/run/dnsmasq/resolv.conf"),
        (DHCLIENT, COPY),
        (DHCPCD, DHCPCD_COPY),
        (STATIC, COPY),
        ({**NETWORK_MANAGER, "etc/resolv.conf": "nameserver 203.0.113.9\n"}, COPY),  # its owner wrote another one
        ({**NETWORK_MANAGER, "etc/dnsmasq.d/user.conf": "no-resolv\n"}, ""),
        ({**NETWORK_MANAGER, "etc/dnsmasq.d/user.conf": "resolv-file=/etc/resolv.conf\n"}, ""),
        ({**NETWORK_MANAGER, "etc/dnsmasq.d/user.conf": "server=203.0.113.7\n"}, ""),
        ({**NETWORK_MANAGER, "etc/dnsmasq.d/user.conf": "resolv-file=/etc/isp.conf\n"}, ""),
    ],
)
def test_dnsmasq_follows_the_file_that_the_host_maintains(tmp_path: Path, tree: Tree, followed: str) -> None:
    found = [line.partition("=")[2] for line in snippet(host(tmp_path, tree)) if line.startswith("resolv-file=")]
    assert found == ([followed] if followed else [])


@pytest.mark.parametrize(
    ("tree", "copy", "source"),
    [(DHCLIENT, COPY, "/var/lib/dhcp/*.leases"), (DHCPCD, DHCPCD_COPY, "/run/dhcpcd/gfwtools/*")],
)
def test_the_copy_says_where_it_comes_from_and_a_hook_renews_it(
    tmp_path: Path, tree: Tree, copy: str, source: str
) -> None:
    found = written(host(tmp_path, tree))
    assert f"# Copied from: {source}" in found[copy]
    assert lines(found[copy]) == ["nameserver 203.0.113.1"]
    assert any("gfwtools_lease" in text for text in found.values())


def test_a_hook_writes_the_whole_copy_also_where_it_was_lost(tmp_path: Path) -> None:
    config = host(tmp_path, DHCLIENT)
    put(edits(config, observe(config, HOST)), config.paths)
    whole = (tmp_path / COPY[1:]).read_text()
    (tmp_path / COPY[1:]).unlink()
    script = (tmp_path / HOOK).read_text()
    for folder in ("/var/lib/gfwtools", "/run/gfwtools"):
        script = script.replace(f"{folder}/", f"{tmp_path}{folder}/")
    lease = {"reason": "BOUND", "interface": "wan0", "new_domain_name_servers": "203.0.113.1 fe80::1 $(id)"}
    subprocess.run(["sh", "-c", script], env={**os.environ, **lease}, check=True)
    assert (tmp_path / COPY[1:]).read_text() == whole


def test_where_the_owner_wrote_resolv_conf_no_lease_changes_the_copy(tmp_path: Path) -> None:
    found = written(host(tmp_path, STATIC))
    assert lines(found[COPY]) == ["nameserver 203.0.113.9"]
    assert not any("gfwtools_lease" in text for text in found.values())


def test_the_owner_is_asked_before_a_hook_of_dhcpcd_is_changed(tmp_path: Path) -> None:
    config = host(tmp_path, {**DHCPCD, "etc/dhcpcd.enter-hook": "echo mine\n"})
    planned = Planned(config, config.paths.config, None, "none", edits(config, observe(config, HOST)), [], [], [])
    assert any(line.startswith("/etc/dhcpcd.enter-hook: ") for line in planned.asks)


@pytest.mark.parametrize("tree", [RESOLVCONF, OPENRESOLV])
def test_with_resolvconf_the_dhcp_clients_go_on_giving_it_what_they_have(tmp_path: Path, tree: Tree) -> None:
    more = {"etc/dhcp/dhclient.conf": "", "etc/dhcpcd.conf": "", "etc/NetworkManager/NetworkManager.conf": ""}
    found = written(host(tmp_path, {**tree, **more}))
    assert not any("dhclient" in path or "dhcpcd" in path for path in found)
    assert lines(found["/etc/NetworkManager/conf.d/90-gfwtools.conf"]) == ["[main]", "rc-manager=resolvconf"]


def test_where_resolvconf_collects_later_no_hook_of_ours_is_left_in_the_way(tmp_path: Path) -> None:
    config = host(tmp_path, {**DHCLIENT, "etc/dhcpcd.conf": "", "etc/dhcpcd.enter-hook": "echo mine\n"})
    put(edits(config, observe(config, HOST)), config.paths)
    plant(tmp_path, {**RESOLVCONF, "etc/resolv.conf": (tmp_path / "etc/resolv.conf").read_text()})
    put(edits(config, observe(config, HOST)), config.paths)
    assert (tmp_path / "etc/dhcpcd.enter-hook").read_text() == "echo mine\n"
    assert lines((tmp_path / HOOK).read_text()) == []


@pytest.mark.parametrize("tree", [DHCLIENT, DHCPCD])
def test_a_copy_has_a_hook_that_renews_it_also_where_resolvconf_collects(tmp_path: Path, tree: Tree) -> None:
    more = {"etc/resolvconf/interface-order": "", "sbin/resolvconf": ""}
    found = written(host(tmp_path, {**tree, **more}))
    (hook,) = (text for text in found.values() if "gfwtools_lease" in text)
    assert "make_resolv_conf" not in hook
    assert "skip_hooks" not in hook


def test_a_hook_writes_no_copy_that_dnsmasq_does_not_read(tmp_path: Path) -> None:
    found = written(host(tmp_path, {**DHCPCD, "etc/dhcp/dhclient.conf": ""}))
    assert lines(found[f"/{HOOK}"]) == ["make_resolv_conf() { :; }"]


def test_a_program_named_resolvconf_that_is_systemd_resolveds_collects_nothing(tmp_path: Path) -> None:
    tree = {**RESOLVCONF, "etc/dhcp/dhclient.conf": "", "sbin/resolvconf": "-> ../bin/resolvectl", "bin/resolvectl": ""}
    assert "/etc/dhcp/dhclient-enter-hooks.d/zz-gfwtools" in written(host(tmp_path, tree))


WITH_DNS = {"etc/wireguard/wg0.conf": "[Interface]\nDNS = 10.9.9.1, home.example\n"}


def test_resolvconf_is_to_leave_the_tunnels_resolvers_out_of_dnsmasqs_file(tmp_path: Path) -> None:
    tree = {
        **WITH_DNS,
        "sbin/resolvconf": "",
        "run/dnsmasq/resolv.conf": "nameserver 10.9.9.1\nnameserver 203.0.113.1\n",
    }
    tree["etc/resolvconf/interface-order"] = "lo.@(dnsmasq|pdnsd)\ntun*\n*\n"
    files = written(host(tmp_path, tree))
    order = files["/etc/resolvconf/interface-order"]
    assert lines(order)[:3] == ["wg0", "wg0.*", "*.wg0"]
    assert order.endswith(tree["etc/resolvconf/interface-order"])
    assert "resolv-file=/run/dnsmasq/resolv.conf" in lines(files[SNIPPET])


def test_openresolv_is_to_leave_the_tunnels_resolvers_out_though_they_are_exclusive(tmp_path: Path) -> None:
    tree = {
        **WITH_DNS,
        "sbin/resolvconf": "",
        "etc/resolvconf.conf": "libc=NO\ndnsmasq_resolv=/run/isp.conf\n",
        "run/isp.conf": "nameserver 10.9.9.1\n",
        "run/resolvconf/interfaces/wg0": "nameserver 10.9.9.1\n",
        "run/resolvconf/interfaces/eth0.dhcp": "nameserver 203.0.113.1\n",
    }
    config = host(tmp_path, tree)
    files = written(config)
    assert lines(files["/etc/resolvconf.conf"])[2:] == [
        'inclusive_interfaces="$inclusive_interfaces wg0"',
        'deny_interfaces="$deny_interfaces wg0"',
    ]
    assert "resolv-file=/run/isp.conf" in lines(files[SNIPPET])
    assert resolvers(config) == ["203.0.113.1"]


@pytest.mark.parametrize(
    "signs",
    [
        WITH_DNS,
        {"run/systemd/netif/links/7": "DNS=10.9.9.1\n"},
        {"run/systemd/resolve/netif/7": "SERVERS=10.9.9.1\n"},
    ],
)
def test_a_file_with_a_resolver_of_the_tunnel_in_it_is_copied_without_it(tmp_path: Path, signs: Tree) -> None:
    tree = {
        "etc/resolv.conf": "-> /run/systemd/resolve/stub-resolv.conf",
        "run/systemd/resolve/resolv.conf": "nameserver 10.9.9.1\nnameserver 203.0.113.1\n",
        **signs,
    }
    numbered = Recorder({**HOST.answers, ("ip", "-j", "address"): ADDRESSES.replace('"wg0",', '"wg0", "ifindex": 7,')})
    config = host(tmp_path, tree)
    files = written(config, numbered)
    assert "resolv-file=/var/lib/gfwtools/resolv.conf" in lines(files[SNIPPET])
    assert lines(files["/var/lib/gfwtools/resolv.conf"]) == ["nameserver 203.0.113.1"]


def test_a_resolver_that_the_user_has_set_may_be_the_tunnels(tmp_path: Path) -> None:
    config = host(tmp_path, WITH_DNS, '[dns]\nresolvers = ["10.9.9.1"]\n')
    assert resolvers(config) == ["10.9.9.1"]


@pytest.mark.parametrize("tree", [NETWORK_MANAGER, RESOLVED, RESOLVCONF, OPENRESOLV, DHCLIENT, DHCPCD, STATIC])
def test_a_second_run_follows_what_the_first_one_did(tmp_path: Path, tree: Tree) -> None:
    config = host(tmp_path, tree)
    first = edits(config, observe(config, HOST))
    put(first, config.paths)
    assert edits(config, observe(config, HOST)) == first


def test_while_the_network_is_down_the_followed_file_stays_the_one(tmp_path: Path) -> None:
    config = host(tmp_path, NETWORK_MANAGER)
    first = edits(config, observe(config, HOST))
    put(first, config.paths)
    (tmp_path / "run/NetworkManager/no-stub-resolv.conf").write_text("")
    assert edits(config, observe(config, HOST)) == first


def test_a_dnsmasq_that_may_follow_a_file_again_gets_the_file_too(tmp_path: Path) -> None:
    config = host(tmp_path, {**DHCLIENT, "etc/dnsmasq.d/user.conf": "no-resolv\n"})
    put(edits(config, observe(config, HOST)), config.paths)
    (tmp_path / "etc/dnsmasq.d/user.conf").unlink()
    renew(config, HOST, restarts=True)
    assert f"resolv-file={COPY}" in (tmp_path / SNIPPET[1:]).read_text()
    assert lines((tmp_path / COPY[1:]).read_text()) == ["nameserver 203.0.113.1"]


def test_the_folder_of_the_followed_file_can_be_read_by_all_with_any_umask(tmp_path: Path) -> None:
    config = host(tmp_path, NETWORK_MANAGER)
    put(edits(config, observe(config, HOST)), config.paths)
    shutil.rmtree(tmp_path / "run")
    before = os.umask(0o077)
    try:
        make_folders(config)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "run/NetworkManager").stat().st_mode) == 0o755


def test_configured_resolvers_are_added_to_the_users_own(tmp_path: Path) -> None:
    tree = {"etc/dnsmasq.conf": "server=203.0.113.7\n"}
    found = snippet(host(tmp_path, tree, '[dns]\nresolvers = ["203.0.113.9#5300"]\n'))
    assert "server=203.0.113.9#5300" in found


def test_a_server_for_one_domain_is_no_resolver_for_all(tmp_path: Path) -> None:
    tree = {"etc/resolv.conf": "nameserver 203.0.113.1\n", "etc/dnsmasq.conf": "server=/corp.example/10.0.0.1\n"}
    assert "resolv-file=/var/lib/gfwtools/resolv.conf" in snippet(host(tmp_path, tree))


@pytest.mark.parametrize(
    ("version", "text", "own", "filtered"),
    [
        ("2.90", "", "", "HTTPS,SVCB"),
        ("2.91", "", "filter-rr=ANY", "HTTPS,SVCB"),
        ("2.90", "", "filter-rr=ANY,HTTPS", "SVCB"),
        ("2.89", "", "", None),
        ("2.90", "[dns]\nhttps_records = true\n", "", None),
        ("2.90", '[dns]\nlayout = "split"\n', "", None),
    ],
)
def test_records_with_addresses_are_left_out_where_dnsmasq_can_and_the_user_wants_it(
    tmp_path: Path, version: str, text: str, own: str, filtered: str | None
) -> None:
    runner = Recorder({("dnsmasq", "--version"): f"Dnsmasq version {version}  Copyright (c) 2000-2024 Simon Kelley"})
    found = snippet(host(tmp_path, {"etc/dnsmasq.conf": f"{own}\n"}, text), runner)
    assert [line for line in found if line.startswith("filter-rr=")] == ([f"filter-rr={filtered}"] if filtered else [])


def test_with_stop_rebind_for_all_names_those_with_a_resolver_of_their_own_are_left_out(tmp_path: Path) -> None:
    own = (
        "server=/corp.example/*.lab.example/10.0.0.53\nserver=/nowhere.example/\nserver=203.0.113.7\nstop-dns-rebind\n"
    )
    text = '[dns]\nstop_rebind = "all"\nrebind_ok = ["plex.direct"]\n'
    found = [line for line in snippet(host(tmp_path, {"etc/dnsmasq.conf": own}, text)) if "rebind" in line]
    assert found == [f"rebind-domain-ok=/{name}/" for name in ("plex.direct", "corp.example", "lab.example")]
    assert "stop-dns-rebind" in snippet(host(tmp_path / "other", {}, text))


@pytest.mark.parametrize(
    ("own", "left_out"),
    [
        ("dhcp-range=192.168.7.100,192.168.7.120\n", ["wan0", "wg0"]),
        ("dhcp-range=192.168.7.100,192.168.7.120\nexcept-interface=wan0\n", ["wg0"]),
        ("dhcp-range=192.168.7.100,192.168.7.120\nbind-interfaces\n", []),
    ],
)
def test_where_dnsmasq_serves_all_interfaces_the_wan_and_the_tunnel_are_left_out(
    tmp_path: Path, own: str, left_out: list[str]
) -> None:
    found = snippet(host(tmp_path, {"etc/dnsmasq.conf": own}, "[host]\ngateway = true\n"))
    assert [line for line in found if line.startswith("except-interface=")] == [
        f"except-interface={name}" for name in left_out
    ]


def test_the_canary_can_be_switched_off(tmp_path: Path) -> None:
    assert not [line for line in snippet(host(tmp_path, {}, "[dns]\ncanary = false\n")) if "application" in line]


def test_dnssec_brings_the_roots_keys(tmp_path: Path) -> None:
    tree = {"usr/share/dnsmasq-base/trust-anchors.conf": ""}
    found = snippet(host(tmp_path, tree, "[dns]\ndnssec = true\n"))
    assert {"dnssec", "conf-file=/usr/share/dnsmasq-base/trust-anchors.conf"} <= set(found)
    assert [line.split(",")[1] for line in found if line.startswith("trust-anchor=")] == ["20326", "38696"]


def test_further_hosts_files_are_named(tmp_path: Path) -> None:
    found = snippet(host(tmp_path, {}, '[dns]\naddn_hosts = ["/etc/hosts.lan", "/etc/hosts.work"]\n'))
    assert [line for line in found if "addn" in line] == ["addn-hosts=/etc/hosts.lan", "addn-hosts=/etc/hosts.work"]


def test_a_pid_file_is_named_only_in_a_folder_that_is_there_at_boot(tmp_path: Path) -> None:
    """dnsmasq does not start where it cannot write it."""
    line = "pid-file=/run/dnsmasq/dnsmasq.pid"
    config = host(tmp_path, {})
    assert line not in snippet(config)
    host(tmp_path, {"run/dnsmasq/x": ""})
    assert line not in snippet(config)
    host(tmp_path, {"usr/lib/tmpfiles.d/dnsmasq.conf": ""})
    assert line in snippet(config)


# ---------------------------------------------------------------- resolv.conf, twice, and back


def test_resolv_conf_names_this_host_and_keeps_its_other_lines(tmp_path: Path) -> None:
    text = "# by hand\nnameserver 203.0.113.1\nsearch lan example.net\noptions edns0\n"
    found = written(host(tmp_path, {"etc/resolv.conf": text}))["/etc/resolv.conf"]
    assert found.startswith("#")
    assert lines(found) == ["nameserver 127.0.0.1", "search lan example.net", "options edns0"]


FRESH: list[Tree] = [
    {"etc/resolv.conf": "nameserver 203.0.113.1\nsearch lan", "etc/dnsmasq.conf": "domain-needed"},
    {
        "etc/resolv.conf": "-> ../run/systemd/resolve/stub-resolv.conf",
        "run/systemd/resolve/stub-resolv.conf": "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch lan\n",
        "run/systemd/resolve/resolv.conf": "nameserver 203.0.113.1\n",
        **DEBIAN_SCRIPT,
        "etc/default/dnsmasq": "CONFIG_DIR=/etc/dnsmasq.d,.dpkg-dist\n",
    },
    {
        "etc/resolv.conf": "-> /run/NetworkManager/resolv.conf",
        "run/NetworkManager/resolv.conf": "nameserver 203.0.113.1\n",
        "etc/NetworkManager/NetworkManager.conf": "[main]\nplugins=keyfile\n",
    },
    {
        "etc/resolv.conf": "nameserver 203.0.113.1\n",
        "etc/dhcpcd.conf": "hostname\ninterface eth0\n",
        "etc/resolvconf.conf": "name_servers=127.0.0.1",
        "etc/resolvconf/resolv.conf.d/head": "# head\n",
        "etc/dhcp/dhclient.conf": "",
    },
    {},
]


@pytest.mark.parametrize("tree", FRESH)
def test_a_second_run_finds_nothing_to_do(tmp_path: Path, tree: Tree) -> None:
    config = host(tmp_path, tree)
    first = edits(config, observe(config, HOST))
    put(first, config.paths)
    facts = observe(config, HOST)
    assert edits(config, facts) == first
    assert steps(facts) == []


@pytest.mark.parametrize("tree", FRESH)
def test_everything_goes_back_byte_for_byte(tmp_path: Path, tree: Tree) -> None:
    config = host(tmp_path, tree)
    config.paths.state_dir.mkdir(parents=True)
    before = tree_of(tmp_path)
    put(edits(config, observe(config, HOST)), config.paths)
    assert tree_of(tmp_path) != before
    assert files.put_back(config.paths) == {}
    assert tree_of(tmp_path) == before


def test_the_resolvers_are_not_forgotten_when_their_file_has_gone(tmp_path: Path) -> None:
    config = host(tmp_path, FRESH[2])
    first = edits(config, observe(config, HOST))
    put(first, config.paths)
    (tmp_path / "run/NetworkManager/resolv.conf").unlink()
    assert edits(config, observe(config, HOST)) == first


# ---------------------------------------------------------------- reloads

MANAGED = ResolverFacts(managers=("systemd-resolved", "NetworkManager", "dhcpcd", "resolvconf"))
RESTARTS = [
    Command(("systemctl", "try-restart", "systemd-resolved.service")),
    Command(("systemctl", "try-reload-or-restart", "NetworkManager.service")),
    Command(("resolvconf", "-u")),
]


def test_each_manager_reads_its_file_again_and_so_on_the_way_back() -> None:
    facts = ResolverFacts(managers=MANAGED.managers, tools=frozenset({"systemctl", "resolvconf"}))
    found = steps(facts)
    assert [command for step in found for command in step.do] == RESTARTS
    assert [command for step in found for command in step.undo] == RESTARTS


def test_without_systemd_nobody_asks_it() -> None:
    assert steps(MANAGED) == []


def test_below_another_root_nothing_is_reloaded(tmp_path: Path) -> None:
    config = host(tmp_path, {"run/systemd/system/x": "", "run/dhcpcd/pid": "42\n", **FRESH[1], "etc/dhcpcd.conf": ""})
    runner = Recorder(HOST.answers, tools=frozenset({"systemctl", "resolvconf"}))
    assert steps(observe(config, runner)) == []
    assert leave_steps(["/etc/dhcpcd.conf"], runner, config.paths) == []


def test_only_managers_whose_file_was_put_back_are_reloaded() -> None:
    assert leave_steps(["/etc/resolv.conf"], Recorder(tools=frozenset({"systemctl"}))) == []


# ---------------------------------------------------------------- the real dnsmasq

ASK = """
import dns.message, dns.query, dns.rcode, sys, time
for attempt in range(50):
    try:
        answers = [
            dns.query.udp(dns.message.make_query(n, k), "127.0.0.1", timeout=1)
            for n, k in [("use-application-dns.net", "A"), ("use-application-dns.net", "AAAA")]
        ]
        break
    except OSError:
        time.sleep(0.1)
print(*(dns.rcode.to_text(answer.rcode()) for answer in answers))
"""


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tree = {
        **FRESH[1],
        "etc/dnsmasq.conf": "no-resolv\nbind-dynamic\naddn-hosts=/etc/hosts\n",
        "etc/dnsmasq.d/user.conf": "cache-size=300\nlisten-address=127.0.0.1\ndnssec\n",
    }
    del tree["etc/default/dnsmasq"]
    text = '[host]\ngateway = true\n[dns]\ndnssec = true\naddn_hosts = ["/etc/hosts"]\n'
    return host(tmp_path, tree, text)


def real(config: Config) -> Path:
    """The configuration as dnsmasq sees it, with the paths below the root in place of the host's."""
    put(edits(config, observe(config, HOST)), config.paths)
    root = config.root
    whole = root / "whole.conf"
    whole.write_text((root / "etc/dnsmasq.conf").read_text().replace("/etc/dnsmasq.d", str(root / "etc/dnsmasq.d")))
    return whole


@pytest.mark.e2e
def test_dnsmasq_takes_what_is_written_beside_the_users_own(config: Config) -> None:
    System().read("dnsmasq", "--test", f"--conf-file={real(config)}")


@pytest.mark.e2e
def test_firefox_is_told_to_keep_to_this_resolver(config: Config) -> None:
    whole = real(config)
    script = textwrap.dedent(
        f"""
        ip link set lo up
        dnsmasq --keep-in-foreground --user=root --pid-file= --conf-file={whole} &
        python="$1"; "$python" -c "$2"; kill $!; wait
        """
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script, "sh", sys.executable, ASK],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout.split() == ["NXDOMAIN", "NXDOMAIN"], done.stderr


@pytest.mark.e2e
def test_dnsmasq_refuses_what_the_snippet_avoids(tmp_path: Path) -> None:
    """The reason for looking at the user's lines first."""
    for line in ("cache-size=1", "pid-file=/x"):
        (tmp_path / "c").write_text(f"{line}\n{line}\n")
        assert System().ask("dnsmasq", "--test", f"--conf-file={tmp_path / 'c'}") is None
    for line in ("no-resolv", "bind-dynamic", "dnssec", "listen-address=127.0.0.1", "server=192.0.2.1"):
        (tmp_path / "c").write_text(f"{line}\n{line}\n")
        assert System().ask("dnsmasq", "--test", f"--conf-file={tmp_path / 'c'}") is not None


def test_the_snippet_is_read_before_the_list() -> None:
    assert SNIPPET < "gfwlist.conf"


@pytest.mark.parametrize(
    ("dns", "folder", "main", "second"),
    [
        ("manager = 'systemd'", "", "systemctl restart dnsmasq", "systemctl restart gfwtools-dns@gfwlist"),
        ("manager = 'openrc'", "", "rc-service dnsmasq restart", "rc-service gfwtools-dns.gfwlist restart"),
        ("manager = 'command'\nrestart = ['sh', '/x y']", "", "sh '/x y'", "sh '/x y'"),
        ("manager = 'none'", "", "restart dnsmasq", "restart dnsmasq"),
        ("", "run/openrc", "rc-service dnsmasq restart", "rc-service gfwtools-dns.gfwlist restart"),
        ("restart = ['svc', 'dns']", "run/systemd/system", "systemctl restart dnsmasq", None),
        ("restart = ['svc', 'dns']", "run", "svc dns", "svc dns"),
    ],
)
def test_the_command_that_restarts_dnsmasq_is_that_of_whoever_does(
    tmp_path: Path, dns: str, folder: str, main: str, second: str | None
) -> None:
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    config = loads(f"[dns]\n{dns}\n", root=tmp_path)
    assert restart_command(config) == main
    assert second is None or restart_command(config, "gfwlist") == second


def test_a_file_in_which_somebody_speaks_of_gfwtools_is_not_adopted_as_ours(tmp_path: Path) -> None:
    theirs = "# dnsmasq answers here, see gfwtools\nnohook resolv.conf\n"
    config = host(tmp_path, {"etc/dhcpcd.conf": theirs, "etc/resolv.conf": "# Written by gfwtools bootstrap;\n"})
    (tmp_path / "var/lib/gfwtools").mkdir(parents=True)
    found = files.adopt(config.paths, ["/etc/dhcpcd.conf", "/etc/resolv.conf"], {})
    assert found == ["/etc/resolv.conf"]
    files.put_back(config.paths)
    assert (tmp_path / "etc/dhcpcd.conf").read_text() == theirs
    assert not (tmp_path / "etc/resolv.conf").exists()


def test_a_file_that_was_put_back_before_the_journal_said_so_is_no_changed_one(tmp_path: Path) -> None:
    config = host(tmp_path, {"etc/resolv.conf": "nameserver 192.0.2.1\n"})
    put([files.FileEdit("/etc/resolv.conf", b"# Written by gfwtools\n", "a test")], config.paths)
    (tmp_path / "etc/resolv.conf").write_text("nameserver 192.0.2.1\n")
    assert files.put_back(config.paths) == {}
    assert not (tmp_path / "var/lib/gfwtools/before").exists()

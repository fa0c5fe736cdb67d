"""A host like Alpine, where installing dnsmasq neither enables nor starts it: OpenRC's two programs are stood in for."""

import json
import sys

import pytest
from lab import TUNNEL, Lab

pytestmark = pytest.mark.e2e

RC_UPDATE = """#!/bin/sh
case $1 in
add) ln -s "/etc/init.d/$2" "/etc/runlevels/$3/$2" ;;
del) rm -f "/etc/runlevels/$3/$2" ;;
esac
"""
#: dnsmasq's script as Alpine has it: a configuration, a pid file.
RC_SERVICE = """#!/bin/sh
case $1 in --*) shift ;; esac
case $1 in gfwtools-dns.*) [ "$2" = stop ] && exit 0; echo "Address already in use" >&2; exit 1 ;; esac
[ "$1" = dnsmasq ] || exit 0
pid=$(cat /run/dnsmasq/dnsmasq.pid 2>/dev/null)
alive() { grep -qs '^State:.[^ZX]' "/proc/$pid/status"; }
case $2 in
status) [ -n "$pid" ] && alive; exit ;;
stop | restart)
    [ -n "$pid" ] && kill "$pid" 2>/dev/null
    while [ -n "$pid" ] && alive; do sleep 0.01; done
    rm -f /run/dnsmasq/dnsmasq.pid
    pid= ;;
esac
case $2 in
start | restart) [ -n "$pid" ] && alive || dnsmasq --conf-file=/etc/dnsmasq.conf --pid-file=/run/dnsmasq/dnsmasq.pid ;;
esac
"""
STATE = "ls -l /etc/runlevels/default /etc/init.d /var/lib/gfwtools/dnsmasq-* 2>/dev/null | grep -v total; rc-service dnsmasq status; echo $?"


FILES = "find /etc/init.d /etc/runlevels /etc/local.d | sort"


class Alpine(Lab):
    """The lab with such a gateway."""

    def rc(self, script: str) -> str:
        return self.gateway.run("env", f"PATH=/run/bin:{PATH}", "sh", "-c", script).stdout

    def tool(self, *args: str, code: int = 0) -> str:
        done = self.gateway.run_with("/run/bin", sys.executable, "-m", "gfwtools", *args, code=code)
        return done.stdout + done.stderr

    def prepare(self) -> None:
        self.configure()
        text = self.gateway.read("/etc/gfwtools/config.toml")
        self.gateway.write("/etc/gfwtools/config.toml", text.replace('manager = "command"', 'manager = "openrc"'))
        self.gateway.write("/run/bin/rc-update", RC_UPDATE, 0o755)
        self.gateway.write("/run/bin/rc-service", RC_SERVICE, 0o755)
        self.gateway.write("/run/openrc/softlevel", "default\n")
        for service in ("dnsmasq", "local"):
            self.gateway.write(f"/etc/init.d/{service}", "#!/sbin/openrc-run\n", 0o755)
        self.gateway.run("mkdir", "-p", "/etc/runlevels/default", "/etc/local.d")


PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
BOOTSTRAP = ("bootstrap", "--interface", "wg0", "--init", "openrc", "--yes")


def test_bootstrap_enables_and_starts_dnsmasq_and_teardown_leaves_it_as_it_was() -> None:
    with Alpine() as lab:
        lab.prepare()
        before = lab.rc(STATE)
        assert before.endswith("\n1\n")
        lab.tool(*BOOTSTRAP)
        assert lab.open(lab.client, "blocked.example") == TUNNEL
        assert "/etc/runlevels/default/dnsmasq" in lab.rc("echo /etc/runlevels/default/*")
        assert "enable dnsmasq" not in lab.tool(*BOOTSTRAP), "a second run finds it done"
        lab.rc("rm /etc/runlevels/default/dnsmasq")
        told = json.loads(lab.tool("check", "host", "--json", code=1))
        assert [finding["remedy"] for finding in told if finding["state"] != "OK"] == ["rc-update add dnsmasq default"]
        lab.rc("rc-update add dnsmasq default")
        lab.tool("check", "host")
        lab.tool("teardown", "--yes")
        assert lab.rc(STATE) == before


def test_a_dnsmasq_that_was_enabled_and_ran_does_so_after_teardown() -> None:
    with Alpine() as lab:
        lab.prepare()
        lab.rc("rc-update add dnsmasq default && rc-service dnsmasq start")
        before = lab.rc(STATE)
        assert before.endswith("\n0\n")
        lab.tool(*BOOTSTRAP)
        lab.tool("teardown", "--yes")
        assert lab.rc(STATE) == before


def test_a_bootstrap_that_fails_leaves_dnsmasq_stopped_and_not_enabled() -> None:
    with Alpine() as lab:
        lab.prepare()
        before = lab.rc(STATE)
        lab.gateway.write("/etc/dnsmasq.d/99-broken.conf", "this-is-no-option\n")
        assert "the host is as it was before" in lab.tool(*BOOTSTRAP, code=1)
        assert lab.rc(STATE) == before


def test_a_second_dnsmasq_that_does_not_start_is_not_left_enabled() -> None:
    with Alpine() as lab:
        lab.prepare()
        text = lab.gateway.read("/etc/gfwtools/config.toml")
        lab.gateway.write("/etc/gfwtools/config.toml", text.replace('"paired"', '"split"'))
        before = lab.rc(FILES)
        told = lab.tool(*BOOTSTRAP, code=1)
        assert "enable gfwtools-dns.gfwlist: " in told
        assert told.count("the host is as it was before") == 1
        assert lab.rc(FILES) == before


def test_what_the_named_init_system_was_given_goes_though_another_one_runs() -> None:
    with Alpine() as lab:
        lab.prepare()
        lab.gateway.run("rm", "-r", "/run/openrc")  # an image that is put together elsewhere
        before = lab.rc(FILES)
        lab.tool(*BOOTSTRAP)
        assert "/etc/runlevels/default/local" in lab.rc(FILES)
        lab.tool("teardown", "--yes")
        assert lab.rc(FILES) == before


def test_all_services_that_debians_openrc_lacks_are_named_before_any_change() -> None:
    with Alpine() as lab:
        lab.prepare()
        lab.gateway.run("rm", "/etc/init.d/local", "/etc/init.d/dnsmasq")
        before = lab.rc(STATE)
        said = lab.tool(*BOOTSTRAP, code=1)
        assert "dnsmasq: there is no such service" in said
        assert "OpenRC has no service local here" in said
        assert "nothing was changed" in said
        assert lab.rc(STATE) == before

"""What an administrator reads who has never seen gfwtools: each surprise has a word, and each fault a way out."""

import sys

import pytest
from lab import Lab

pytestmark = pytest.mark.e2e

#: What bootstrap makes, and what it changes, on the lab's gateway.
MADE = ("/etc/dnsmasq.d/00-gfwtools.conf", "/var/lib/gfwtools/resolv.conf", "/etc/cron.d/gfwtools")
CHANGED = ("/etc/dnsmasq.conf", "/etc/resolv.conf")


def refused_at_a_terminal(lab: Lab, *args: str) -> str:
    """The last line of a command whose question is answered with no."""
    command = " ".join([sys.executable, "-m", "gfwtools", *args])
    shown = lab.gateway.run("script", "-qec", command, "/dev/null", stdin="n\n", code=130).stdout
    return shown.rstrip().splitlines()[-1]


def test_who_says_no_to_bootstrap_reads_that_nothing_was_changed() -> None:
    with Lab() as lab:
        lab.configure()
        last = refused_at_a_terminal(lab, "bootstrap", "--interface", "wg0", "--init", "none")
        assert last.endswith("gfwtools: nothing was changed")


def test_who_says_no_to_teardown_reads_that_nothing_was_changed() -> None:
    with Lab() as lab:
        assert refused_at_a_terminal(lab, "teardown").endswith("gfwtools: nothing was changed")


def test_teardown_names_what_it_removes_apart_from_what_it_puts_back() -> None:
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        lines = lab.gateway.gfwtools("teardown", "--yes").stdout.splitlines()
        assert [path for path in MADE if f"removed {path}" not in lines] == []
        assert [path for path in CHANGED if f"put back {path}" not in lines] == []


def test_teardown_ends_with_what_stays() -> None:
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        last = lab.gateway.gfwtools("teardown", "--yes").stdout.splitlines()[-1]
        assert "the configuration and the lists stay" in last


def test_teardown_of_a_host_that_was_never_set_up_says_so() -> None:
    with Lab() as lab:
        assert lab.gateway.gfwtools("teardown", "--yes").stdout == "nothing to undo\n"


def test_check_host_of_a_host_that_was_never_set_up_names_bootstrap() -> None:
    with Lab() as lab:
        errors = lab.gateway.gfwtools("check", "host", code=1).stderr
        assert "never bootstrapped; run: gfwtools bootstrap --interface wg0" in errors


def route_of_marked_packets(lab: Lab) -> str:
    """What ``check host`` says about them, with the remedy."""
    lines = lab.gateway.gfwtools("check", "host", code=1).stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if "route of packets with mark" in line)
    return " ".join(lines[at : at + 2])


def test_marked_packets_without_our_rule_are_fixed_by_up() -> None:
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        lab.gateway.run("ip", "rule", "del", "pref", "5181")
        assert route_of_marked_packets(lab).endswith("fix: gfwtools up")


def test_marked_packets_that_a_foreign_rule_takes_are_not_fixed_by_up_alone() -> None:
    with Lab() as lab:
        lab.configure()
        lab.bootstrap()
        lab.gateway.run("ip", "rule", "add", "pref", "100", "lookup", "main")
        assert "remove the rule that comes first" in route_of_marked_packets(lab)


def test_an_interrupted_bootstrap_says_that_the_host_is_as_before() -> None:
    with Lab() as lab:
        lab.configure()
        restart = lab.gateway.read("/etc/restart-dns")
        lab.gateway.write(
            "/etc/restart-dns", restart.replace("#!/bin/sh\n", "#!/bin/sh\nkill -INT $(cat /run/bootstrap)\n", 1)
        )
        command = f"echo $$ >/run/bootstrap; exec {sys.executable} -m gfwtools bootstrap --init none --yes"
        done = lab.gateway.run("sh", "-c", command, code=130)
        assert "every step was taken back; the host is as before" in done.stderr

"""``update --reload`` with the real dnsmasq: nothing worse than before, whatever happens."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fresh_host import HERE, MAIN, RESTART, FreshHost
from stub_resolver import address

pytestmark = pytest.mark.e2e

CLEAN, ISP = "10.1", "10.2"
DATA = HERE.parents[1] / "gfwtools" / "data"


def configure(host: FreshHost, layout: str, backend: str, more: str = "") -> None:
    host.write(
        "/etc/gfwtools/config.toml",
        f'[dns]\nlayout = "{layout}"\nmanager = "command"\nrestart = ["/usr/bin/env", "sh", "/etc/restart-dns"]\n'
        f'[host]\nbackend = "{backend}"\n'
        f'[policy.gfwlist]\nsources = ["/etc/list.txt"]\nupstream = ["127.0.0.1#5301"]\n{more}',
    )


def write_list(host: FreshHost, *rules: str) -> None:
    host.write("/etc/list.txt", "[AutoProxy 0.2.9]\n" + "\n".join(f"||{rule}" for rule in rules) + "\n")


BASE = ("google.com", *(f"blocked{number}.example" for number in range(20)))


@pytest.fixture(params=[("paired", "iptables"), ("split", "iptables"), ("paired", "nftables"), ("split", "nftables")],
                ids=lambda pair: "-".join(pair))  # fmt: skip
def host(request: pytest.FixtureRequest) -> Iterator[FreshHost]:
    layout, backend = request.param
    with FreshHost() as host:
        host.backend = backend  # type: ignore[attr-defined]
        host.layout = layout  # type: ignore[attr-defined]
        host.stub_resolver(5301, CLEAN)
        host.stub_resolver(5302, ISP)
        host.write("/etc/restart-dns", RESTART)
        host.write("/etc/dnsmasq.conf", MAIN)
        configure(host, layout, backend)
        write_list(host, *BASE)
        host.run("sh", "/etc/restart-dns")
        yield host


def ask(host: FreshHost, name: str) -> str:
    output = host.run(sys.executable, HERE / "ask.py", "127.0.0.1", "53", stdin=name).stdout
    return str(json.loads(output)[name][0])


def in_set(host: FreshHost, text: str) -> bool:
    if host.backend == "nftables":  # type: ignore[attr-defined]
        argv = ["nft", "get", "element", "inet", "gfwtools", "gfwlist4", f"{{ {text} }}"]
    else:
        argv = ["ipset", "test", "gfwlist", text]
    return host.run(*argv, code=None).returncode == 0


def is_tunnelled(host: FreshHost, name: str) -> bool:
    """Whether both halves say so: the clean resolver's answer, and the address in the set."""
    found = ask(host, name)
    assert (found == address(name, CLEAN)) == in_set(host, found), (name, found)
    return found == address(name, CLEAN)


def restarts(host: FreshHost) -> int:
    return int(host.run("sh", "-c", "cat /run/restarts | wc -l").stdout)


def pids(host: FreshHost) -> str:
    return host.run("sh", "-c", "cat /run/dnsmasq/dnsmasq.pid /run/gfwtools/*.pid 2>/dev/null; true").stdout


def test_a_domain_that_is_added_is_tunnelled_and_one_that_is_removed_goes_direct(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    assert is_tunnelled(host, "www.google.com")
    assert not is_tunnelled(host, "new.example")
    write_list(host, *BASE[1:], "new.example")
    host.gfwtools("update", "--reload")
    assert is_tunnelled(host, "new.example")
    assert not is_tunnelled(host, "fresh.google.com")


def test_nothing_new_reloads_nothing_and_says_nothing_in_quiet(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    before = (pids(host), restarts(host))
    result = host.gfwtools("-q", "update", "--reload")
    assert (result.stdout, result.stderr) == ("", "")
    assert (pids(host), restarts(host)) == before


def test_in_the_split_layout_an_update_is_a_signal_and_no_restart(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    before = pids(host)
    write_list(host, *BASE, "new.example")
    host.gfwtools("update", "--reload")
    assert (pids(host) == before) == (host.layout == "split")  # type: ignore[attr-defined]
    assert is_tunnelled(host, "new.example")


def test_a_new_date_alone_reloads_nothing(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    before = pids(host)
    text = host.read("/etc/list.txt")
    host.write("/etc/list.txt", text.replace("[AutoProxy 0.2.9]", "[AutoProxy 0.2.9]\n! Last Modified: today"))
    assert "nothing to reload" in host.gfwtools("update", "--reload").stdout
    assert pids(host) == before


def seeded(host: FreshHost) -> str:
    """The set with the seed, as it is in the kernel."""
    if host.backend == "nftables":  # type: ignore[attr-defined]
        return host.run("nft", "list", "set", "inet", "gfwtools", "gfwlist_seed4").stdout
    return host.run("ipset", "save", "gfwlist").stdout


SETS = "ipset list -name; nft list tables; nft -t list table inet gfwtools 2>/dev/null"


def test_a_failed_update_leaves_no_set_that_was_not_there(host: FreshHost) -> None:
    before = host.run("sh", "-c", SETS, code=None).stdout
    host.write("/etc/restart-dns", f"[ -e /etc/dnsmasq.d/gfwlist.conf ] && exit 1\n{RESTART}")
    host.gfwtools("update", "--reload", code=1)
    assert host.run("sh", "-c", SETS, code=None).stdout == before
    # Also where an older list is on the disk, and the sets went with a reboot.
    host.write("/etc/restart-dns", RESTART)
    host.gfwtools("update", "--reload")
    host.run("sh", "-c", "ipset destroy; nft flush ruleset")
    write_list(host, *BASE, "new.example")
    host.write("/etc/restart-dns", f"grep -rq new.example /etc/dnsmasq.d /etc/gfwtools/dns && exit 1\n{RESTART}")
    host.run("sh", "-c", "kill $(cat /run/dnsmasq/dnsmasq.pid)")  # in the split layout a list alone needs no restart
    host.write("/etc/list.txt", host.read("/etc/list.txt") + "|http://85.17.73.32/\n")
    host.gfwtools("update", "--reload", code=1)
    assert host.run("sh", "-c", SETS, code=None).stdout == before


@pytest.mark.parametrize("host", [("paired", "iptables"), ("paired", "nftables")], ids="-".join, indirect=True)
def test_a_failed_update_leaves_the_seed_of_before_in_the_kernel(host: FreshHost) -> None:
    host.write("/etc/list.txt", host.read("/etc/list.txt") + "|http://85.17.73.31/\n")
    host.gfwtools("update", "--reload")
    write_list(host, *BASE, "new.example")
    host.write("/etc/list.txt", host.read("/etc/list.txt") + "|http://85.17.73.32/\n")
    host.write("/etc/restart-dns", f"grep -rq new.example /etc/dnsmasq.d && exit 1\n{RESTART}")
    host.gfwtools("update", "--reload", code=1)
    assert "85.17.73.31" in seeded(host)
    assert "85.17.73.32" not in seeded(host)


def test_a_changed_seed_is_loaded_without_touching_dnsmasq(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    before = pids(host)
    write_list(host, *BASE)
    host.write("/etc/list.txt", host.read("/etc/list.txt") + "|http://85.17.73.31/\n")
    host.gfwtools("update", "--reload")
    assert "85.17.73.31" in seeded(host)
    write_list(host, *BASE)
    host.gfwtools("update", "--reload")
    assert "85.17.73.31" not in seeded(host)
    assert pids(host) == before


def snapshot(host: FreshHost) -> str:
    return host.run(
        "sh",
        "-c",
        "cd /; find etc/gfwtools etc/dnsmasq.d var/lib/gfwtools -type f ! -name lock ! -name .fill | sort | xargs sha256sum",
    ).stdout


@pytest.mark.parametrize(
    "what", ["a broken dnsmasq.conf", "a full disk", "a restart that fails", "a set that fills not"]
)
def test_when_a_step_fails_the_old_state_answers_throughout(host: FreshHost, what: str) -> None:
    host.gfwtools("update", "--reload")
    before = snapshot(host)
    write_list(host, *BASE[1:], "new.example")
    if what == "a broken dnsmasq.conf":
        host.write("/etc/dnsmasq.conf", f"{MAIN}nonsense\n")
        message = "was broken before.*bad option"
    elif what == "a full disk":
        script = "mkdir /tmp/x$$; mv /etc/dnsmasq.d /etc/d.old; mkdir /etc/dnsmasq.d; mount -t tmpfs -o size=8k tmpfs /etc/dnsmasq.d; cp /etc/d.old/* /etc/dnsmasq.d/; head -c 100000 /dev/zero >/etc/dnsmasq.d/.fill || true"
        host.run("sh", "-c", script)
        write_list(host, *BASE, *(f"n{number}.example" for number in range(3000)))
        if host.layout == "split":  # type: ignore[attr-defined]
            host.run(
                "sh",
                "-c",
                "mv /etc/gfwtools/dns /etc/dns.old; mkdir /etc/gfwtools/dns; mount -t tmpfs -o size=8k tmpfs /etc/gfwtools/dns; cp /etc/dns.old/* /etc/gfwtools/dns/; head -c 100000 /dev/zero >/etc/gfwtools/dns/.fill || true",
            )
        message = "No space left"
    elif what == "a restart that fails":
        # The new unit does not come up; with the old files it does.
        host.write(
            "/etc/restart-dns",
            RESTART.replace("for pid", "grep -rq new.example /etc/gfwtools/dns /etc/dnsmasq.d && exit 3\nfor pid", 1),
        )
        if host.layout == "split":  # type: ignore[attr-defined]
            # A list alone is a signal there; a new upstream wants a restart.
            configure(host, "split", host.backend)  # type: ignore[attr-defined]
            text = host.read("/etc/gfwtools/config.toml")
            host.write("/etc/gfwtools/config.toml", text.replace('#5301"]', '#5301", "127.0.0.1#5303"]'))
            before = snapshot(host)
        message = "restart (the second )?dnsmasq"
    else:
        # Another program answers for the set: dnsmasq may not fill it any more.
        name = "nftset" if host.backend == "nftables" else "ipset"  # type: ignore[attr-defined]
        wrapper = f'#!/bin/sh\n[ "$1" = test ] && exit 1\nexec /usr/sbin/{name} "$@"\n'
        if name == "nftset":
            wrapper = '#!/bin/sh\n[ "$1" = get ] && exit 1\nexec /usr/sbin/nft "$@"\n'
        tool = "nft" if name == "nftset" else "ipset"
        host.write(f"/run/bin/{tool}", wrapper, 0o755)
        message = "did not get into set gfwlist"
    host.run("mkdir", "-p", "/run/bin")
    result = host.run_with("/run/bin", sys.executable, "-m", "gfwtools", "update", "--reload", code=1)
    assert re.search(message, result.stderr), result.stderr
    assert result.stderr.count("\n") == 1
    assert snapshot(host) == before
    host.wait_for_dns()
    assert is_tunnelled(host, "x.google.com")
    assert not is_tunnelled(host, "y.new.example")


SPLIT = pytest.mark.parametrize("host", [("split", "iptables")], ids="-".join, indirect=True)


@SPLIT
@pytest.mark.parametrize("end", ["KILL", "STOP"])
def test_a_second_dnsmasq_that_has_ended_or_hangs_is_restarted_by_an_update(host: FreshHost, end: str) -> None:
    host.gfwtools("update", "--reload")
    host.write("/etc/restart-dns", RESTART.replace('kill "$number"', 'kill -9 "$number"'))
    host.run("sh", "-c", f"kill -{end} $(cat /run/gfwtools/dns-gfwlist.pid)")
    write_list(host, *BASE, "new.example")
    assert "restarted the second dnsmasq of gfwlist" in host.gfwtools("update", "--reload").stdout
    assert is_tunnelled(host, "new.example")


@SPLIT
def test_a_second_dnsmasq_that_stays_silent_is_a_failed_step(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    before = snapshot(host)
    host.write("/etc/restart-dns", "exit 0\n")
    host.run("sh", "-c", "kill -STOP $(cat /run/gfwtools/dns-gfwlist.pid)")
    write_list(host, *BASE, "new.example")
    result = host.gfwtools("update", "--reload", code=1)
    assert "the second dnsmasq of gfwlist does not answer at 127.0.0.1#5354" in result.stderr
    assert snapshot(host) == before


PAIRED = pytest.mark.parametrize("host", [("paired", "iptables")], ids="-".join, indirect=True)


@PAIRED
def test_a_dnsmasq_at_a_port_named_beside_a_comment_is_asked_there(host: FreshHost) -> None:
    host.write("/etc/dnsmasq.conf", f"{MAIN}conf-file=/etc/dm.more\n")
    host.write("/etc/dm.more", "port=5353 # moved\n")
    assert "restarted dnsmasq" in host.gfwtools("update", "--reload").stdout


@PAIRED
@pytest.mark.parametrize("target", ["none", "x.conf"])
def test_a_broken_link_in_the_folder_is_found_before_anything_is_restarted(host: FreshHost, target: str) -> None:
    host.gfwtools("update", "--reload")
    host.run("ln", "-s", target, "/etc/dnsmasq.d/x.conf")
    before = (snapshot(host), pids(host), restarts(host))
    write_list(host, *BASE, "new.example")
    result = host.gfwtools("update", "--reload", code=1)
    assert "check: dnsmasq's configuration was broken before: " in result.stderr
    assert "cannot access /etc/dnsmasq.d/x.conf" in result.stderr
    assert (snapshot(host), pids(host), restarts(host)) == before


@PAIRED
def test_a_folder_given_on_the_command_line_alone_is_read_with_its_endings(host: FreshHost) -> None:
    folder = "--conf-dir=/etc/dnsmasq.d,.dpkg-old"
    host.write("/etc/restart-dns", RESTART.replace("--conf-file=/etc/dnsmasq.conf", folder))
    host.write("/etc/dnsmasq.conf", MAIN.replace("conf-dir=", "#conf-dir="))
    host.write("/etc/dnsmasq.d/once", "cache-size=300\n")
    host.write("/etc/dnsmasq.d/x.dpkg-old", "nonsense\n")
    host.run("sh", "/etc/restart-dns")
    host.gfwtools("update", "--reload")
    assert is_tunnelled(host, "www.google.com")
    host.write("/etc/dnsmasq.d/x.dpkg-new", "nonsense\n")
    write_list(host, *BASE, "new.example")
    result = host.gfwtools("update", "--reload", code=1)
    assert "was broken before: dnsmasq: bad option at line 1 of /etc/dnsmasq.d/x.dpkg-new" in result.stderr


@PAIRED
@pytest.mark.parametrize(
    ("made", "kind"),
    [("gfwlist hash:ip", "hash:ip family inet"), ("gfwlist_direct hash:net timeout 9", "hash:net .*timeout 9")],
)
def test_a_set_of_that_name_made_by_hand_is_told_with_what_to_do(host: FreshHost, made: str, kind: str) -> None:
    host.run("ipset", "create", *made.split())
    name = made.split()[0]
    result = host.gfwtools("update", "--reload", code=1)
    expected = (
        rf"load the seed: set {name} is {kind}.* and should be hash:net .*; remove it \(ipset destroy {name}\), or "
    )
    assert re.search(expected, result.stderr), result.stderr
    host.run("ipset", "destroy", name)
    host.gfwtools("update", "--reload")
    assert is_tunnelled(host, "www.google.com")


@pytest.mark.parametrize("host", [("paired", "iptables"), ("split", "iptables")], ids="-".join, indirect=True)
def test_a_clean_resolver_that_refuses_is_not_called_silent(host: FreshHost) -> None:
    host.stub_resolver(5303, "REFUSED")
    text = host.read("/etc/gfwtools/config.toml")
    host.write("/etc/gfwtools/config.toml", text.replace("#5301", "#5303"))
    told = host.gfwtools("update", "--reload").stdout
    assert "note: for blocked0.example 127.0.0.1#5303 says REFUSED; give another policy.gfwlist.upstream" in told
    assert "did not answer" not in told


@PAIRED
def test_where_going_back_failed_the_next_update_restarts_dnsmasq_with_nothing_new(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    write_list(host, *BASE, "new.example")
    host.write("/etc/restart-dns", RESTART.replace("\ndnsmasq --conf", "\nexit 3\ndnsmasq --conf"))
    result = host.gfwtools("update", "--reload", code=1)
    assert re.search(
        "could not be taken back: restart dnsmasq: .*; fix that, then run: gfwtools update --reload$",
        result.stderr,
    )
    write_list(host, *BASE)
    host.write("/etc/restart-dns", RESTART)
    assert "restarted dnsmasq" in host.gfwtools("update", "--reload").stdout
    assert is_tunnelled(host, "www.google.com")


@PAIRED
def test_a_dnsmasq_that_stays_silent_is_told_with_its_place_and_a_way_out(host: FreshHost) -> None:
    host.write("/etc/restart-dns", "kill $(cat /run/dnsmasq/dnsmasq.pid); rm -f /run/dnsmasq/dnsmasq.pid\n")
    result = host.gfwtools("update", "--reload", code=1)
    assert re.search(r"dnsmasq does not answer at 127\.0\.0\.1#53 \(from .*\); run: gfwtools check host", result.stderr)


def test_a_killed_update_is_finished_by_the_next(host: FreshHost) -> None:
    """Killed before each of its system calls that rename, unlink or signal, one after the other."""
    host.gfwtools("update", "--reload")
    for number in range(1, 40):
        write_list(host, *BASE, f"new{number}.example")
        command = ["strace", "-qq", "-o", "/run/trace", "-e", "trace=rename,renameat,renameat2,unlink,unlinkat,pidfd_send_signal",
                   "-e", f"inject=rename,renameat,renameat2,unlink,unlinkat,pidfd_send_signal:signal=SIGKILL:when={number}"]  # fmt: skip
        result = host.run(*command, sys.executable, "-m", "gfwtools", "update", "--reload", code=None)
        killed = result.returncode != 0
        host.wait_for_dns()
        assert is_tunnelled(host, f"k{number}.google.com")
        host.gfwtools("update", "--reload")
        assert is_tunnelled(host, f"new{number}.example")
        assert not host.run("sh", "-c", "find /etc/gfwtools /etc/dnsmasq.d /var/lib/gfwtools -name '.gfwtools*'").stdout
        if not killed:
            assert number > 3
            return
    raise AssertionError("it never came to its end")


def test_an_update_while_dnsmasq_is_down_brings_it_up(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    host.run("sh", "-c", "kill $(cat /run/dnsmasq/dnsmasq.pid)")
    write_list(host, *BASE, "new.example")
    host.gfwtools("update", "--reload")
    assert is_tunnelled(host, "new.example")


def test_an_update_while_the_set_is_missing_makes_it(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    if host.backend == "nftables":  # type: ignore[attr-defined]
        host.run("nft", "delete", "table", "inet", "gfwtools")
    else:
        host.run("ipset", "destroy", "gfwlist")
    write_list(host, *BASE, "new.example")
    host.gfwtools("update", "--reload")
    assert is_tunnelled(host, "new.example")


def test_two_updates_at_once_both_end_well(host: FreshHost) -> None:
    other = host.start(sys.executable, "-m", "gfwtools", "update", "--reload")
    host.gfwtools("update", "--reload")
    assert other.wait(30) == 0
    assert is_tunnelled(host, "google.com")


def test_without_a_service_manager_nothing_is_changed_and_the_way_out_is_told(host: FreshHost) -> None:
    host.write("/etc/gfwtools/config.toml", '[policy.gfwlist]\nsources = ["/etc/list.txt"]\n')
    before = host.run("ls", "/etc/dnsmasq.d").stdout
    result = host.gfwtools("update", "--reload", code=1)
    assert 'dns.manager = "command"' in result.stderr
    assert host.run("ls", "/etc/dnsmasq.d").stdout == before


def test_a_host_moves_from_one_layout_to_the_other_and_back(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    layouts = ["split", "paired"] if host.layout == "paired" else ["paired", "split"]  # type: ignore[attr-defined]
    for layout in [layouts[0], layouts[1]]:
        configure(host, layout, host.backend)  # type: ignore[attr-defined]
        host.gfwtools("update", "--reload")
        assert is_tunnelled(host, f"in.{layout}.google.com")
        assert (host.run("ls", "/etc/gfwtools/dns/gfwlist.conf", code=None).returncode == 0) == (layout == "split")


# Holds more connections than dnsmasq serves at once (20, each with a process of its own), then asks a hundred questions.
CROWD = """
import dns.message, socket
held = [socket.create_connection(("127.0.0.1", 5354), 3) for _ in range(25)]
for one in held:
    one.send(b"\\0")
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(5)
for number in range(100):
    query = dns.message.make_query(f"n{number}.google.com", "A", id=number)
    asking.sendto(query.to_wire(), ("127.0.0.1", 53))
answers = {dns.message.from_wire(asking.recv(4096)).id for _ in range(100)}
assert answers == set(range(100))
"""


@pytest.mark.parametrize("host", [("split", "iptables"), ("split", "nftables")], ids="-".join, indirect=True)
def test_the_files_that_its_unit_allows_are_enough_for_a_crowd_at_the_second_dnsmasq(host: FreshHost) -> None:
    host.gfwtools("update", "--reload")
    unit = (DATA / "gfwtools-dns@.service").read_text()
    allowed = re.search(r"^LimitNOFILE=(\d+)$", unit, re.MULTILINE)
    assert allowed
    assert f'rc_ulimit="-n {allowed[1]}"' in (DATA / "gfwtools-dns.openrc").read_text()
    limits = host.run("sh", "-c", "cat /proc/$(cat /run/gfwtools/dns-gfwlist.pid)/limits").stdout
    assert re.search(rf"Max open files +{allowed[1]} ", limits)
    host.run(sys.executable, "-c", CROWD)


def test_sighup_goes_to_nobody_but_dnsmasq(tmp_path: Path) -> None:
    import subprocess

    from gfwtools.dnsmasq.daemon import send_sighup

    process = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "pid").write_text(str(process.pid))
        assert not send_sighup(tmp_path / "pid")
        assert process.poll() is None
        for text in ("", "x", "-1", "99999999999999999999", "0"):
            (tmp_path / "pid").write_text(text)
            assert not send_sighup(tmp_path / "pid")
        assert not send_sighup(tmp_path / "none")
    finally:
        process.kill()
        process.wait()

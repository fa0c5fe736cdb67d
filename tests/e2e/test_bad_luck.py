"""What nobody plans: two bootstraps at once, a disk that goes bad in the middle, odd packets."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_disk import MENDED
from given_back import BOOTSTRAP, everything
from lab import BLOCKED, FREE, GATEWAY_WAN, TUNNEL, Lab

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
TEARDOWN = ("teardown", "--yes")
UPDATE = ("update", "--reload", "--force")
#: At how many moments of each command the disk goes bad; GFWTOOLS_MOMENTS=1000 takes each.
MOMENTS = int(os.environ.get("GFWTOOLS_MOMENTS", "1"))
PAIRS = [("iptables", "split"), pytest.param(("nftables", "paired"), marks=pytest.mark.variant)]


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A host that was set up once and is not now: what a first run makes for good is there."""
    with Lab() as lab:
        lab.configure(*request.param)
        lab.gateway.run("sh", "/etc/restart-dns")
        lab.gateway.gfwtools(*BOOTSTRAP)
        lab.gateway.gfwtools(*TEARDOWN)
        yield lab


def test_of_two_bootstraps_at_once_one_sets_the_host_up_and_the_other_says_so(lab: Lab) -> None:
    before = everything(lab)
    argv = lab.gateway.inside([sys.executable, "-m", "gfwtools", *BOOTSTRAP])
    runs = [subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, stdout=subprocess.DEVNULL) for _ in range(3)]
    ended = [(run.communicate(timeout=120)[1], run.returncode) for run in runs]
    assert sorted(code for _, code in ended) == [0, 1, 1], ended
    for told, code in ended:
        assert (told.count("another bootstrap or teardown is running; try again when it has ended") == 1) == bool(code)
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    lab.gateway.gfwtools(*TEARDOWN)
    assert everything(lab) == before


def changes(lab: Lab, *arguments: str) -> int:
    done = lab.gateway.run(sys.executable, HERE / "killed.py", "0", *arguments, code=None)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.splitlines()[-1])


def with_bad_disk(lab: Lab, how: str, number: int, *arguments: str) -> tuple[int, str]:
    """Run it, and repair the disk; the exit code and the last line of its messages."""
    done = lab.gateway.run(sys.executable, HERE / "bad_disk.py", how, str(number), *arguments, code=None)
    lab.gateway.run("sh", "-ec", MENDED[how])
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, (done.stderr.splitlines() or [""])[-1]


def moments(count: int) -> list[int]:
    return sorted({1 + (2 * index + 1) * count // (2 * MOMENTS) for index in range(min(MOMENTS, count - 1))})


SAID = {"full": "No space left on device", "readonly": "Read-only file system"}


@pytest.mark.parametrize("how", SAID)
def test_on_a_disk_that_goes_bad_a_bootstrap_says_so_and_teardown_leaves_no_trace(lab: Lab, how: str) -> None:
    before = everything(lab)
    count = changes(lab, *BOOTSTRAP)
    lab.gateway.gfwtools(*TEARDOWN)
    for number in moments(count):
        code, told = with_bad_disk(lab, how, number, *BOOTSTRAP)
        assert code == 0 or SAID[how] in told, (number, told)
        lab.gateway.gfwtools(*TEARDOWN)
        assert everything(lab) == before, f"before change {number} of {count}: {told}"


@pytest.mark.parametrize("how", SAID)
def test_a_teardown_on_a_disk_that_goes_bad_is_finished_by_the_next(lab: Lab, how: str) -> None:
    before = everything(lab)
    lab.gateway.gfwtools(*BOOTSTRAP)
    count = changes(lab, *TEARDOWN)
    for number in moments(count):
        lab.gateway.gfwtools(*BOOTSTRAP)
        code, told = with_bad_disk(lab, how, number, *TEARDOWN)
        assert code == 0 or SAID[how] in told, (number, told)
        lab.gateway.gfwtools(*TEARDOWN)
        assert everything(lab) == before, f"before change {number} of {count}: {told}"


@pytest.mark.parametrize("how", SAID)
def test_an_update_on_a_disk_that_goes_bad_keeps_the_old_list_in_use(lab: Lab, how: str) -> None:
    lab.gateway.gfwtools(*BOOTSTRAP)
    text = lab.gateway.read("/etc/list.txt")
    lab.gateway.write("/etc/list.txt", f"{text}||zero.example\n")
    count = changes(lab, *UPDATE)
    for number in moments(count):
        lab.gateway.write("/etc/list.txt", f"{text}||new{number}.example\n")
        code, told = with_bad_disk(lab, how, number, *UPDATE)
        assert code == 0 or SAID[how] in told, (number, told)
        assert lab.open(lab.client, "blocked.example") == TUNNEL, number
        lab.gateway.gfwtools(*UPDATE)
        assert f"new{number}.example" in lab.gateway.read("/var/lib/gfwtools/gfwlist.domains")
    lab.gateway.write("/etc/list.txt", text)
    lab.gateway.gfwtools(*TEARDOWN)


# ---------------------------------------------------------------- packets of the LAN

#: A packet with this type of service, from a client: DSCP in the upper six bits (RFC 2474).
SEND = (
    "import socket, sys; sock = socket.socket(); "
    "sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, int(sys.argv[2])); sock.settimeout(4); "
    "sock.connect((sys.argv[1], 80)); print(sock.recv(100).decode())"
)


def test_what_a_packet_of_the_lan_brings_along_does_not_decide_its_way(lab: Lab) -> None:
    lab.gateway.gfwtools(*BOOTSTRAP)
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    leaked = lab.leaked()

    def ways(service: int) -> tuple[str, str]:
        sent = [
            lab.client.run(sys.executable, "-c", SEND, site, str(service)).stdout.strip() for site in (BLOCKED, FREE)
        ]
        return sent[0], sent[1]

    for service in (0x10, 0xB8, 0xFC):
        assert ways(service) == (TUNNEL, GATEWAY_WAN), hex(service)
    # A mark does not leave a host: another program of the gateway gives it to the LAN's packets before our rules.
    for mark in ("0x1", "0x1ca6c", "0x20000000", "0xffff0000"):
        rule = f"PREROUTING -i lan0 -j MARK --set-mark {mark}"
        lab.gateway.run("sh", "-c", f"iptables -t raw -A {rule}")
        assert ways(0) == (TUNNEL, GATEWAY_WAN), mark
        lab.gateway.run("sh", "-c", f"iptables -t raw -D {rule}")
    assert lab.leaked() == leaked
    lab.gateway.gfwtools(*TEARDOWN)


# ---------------------------------------------------------------- a full table of connections

#: Datagrams that nobody answers, until conntrack has no room: it then drops the oldest of their kind.
FILL = """
import socket, sys
for number in range(8):
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for port in range(2000, 62000):
        sender.sendto(b"x", (sys.argv[1], port))
proc = "/proc/sys/net/netfilter/nf_conntrack_"
print(int(open(proc + "max").read()) - int(open(proc + "count").read()))
"""


@pytest.mark.variant
def test_with_conntrack_full_sites_open_as_before_and_nothing_leaks(lab: Lab) -> None:
    lab.gateway.gfwtools(*BOOTSTRAP)
    assert lab.open(lab.client, "blocked.example") == TUNNEL
    lab.isp.run("iptables", "-t", "raw", "-I", "PREROUTING", "-p", "udp", "-d", FREE, "-j", "ACCEPT")
    leaked = lab.leaked()
    room = lab.gateway.run(sys.executable, "-c", FILL, FREE, timeout=300).stdout
    if int(room) > 10_000:
        pytest.skip("this host's conntrack has room for more connections than the test makes")
    assert [lab.visit(host, BLOCKED) for host in (lab.client, lab.gateway)] == [TUNNEL, TUNNEL]
    assert lab.visit(lab.client, FREE) == GATEWAY_WAN
    for command in (("up",), UPDATE, ("check", "host"), ("down",), ("up",)):
        lab.gateway.gfwtools(*command)
    assert lab.visit(lab.client, BLOCKED) == TUNNEL
    lab.isp.run("iptables", "-t", "raw", "-D", "PREROUTING", "1")
    assert lab.leaked() == leaked
    lab.gateway.gfwtools(*TEARDOWN)

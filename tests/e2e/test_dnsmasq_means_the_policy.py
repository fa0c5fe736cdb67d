"""The claim "the files mean what the policy says", with the real dnsmasq and real ipsets in a network namespace."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest
from paths import FIXTURES
from stub_resolver import address

import gfwtools
from gfwtools.config.checks import parse_upstream
from gfwtools.config.model import PolicyConfig
from gfwtools.lists.decode import decode
from gfwtools.lists.policy import Policy
from gfwtools.render import dnsmasq, ipset

pytestmark = pytest.mark.e2e

HERE = Path(__file__).parent
CLEAN, ISP = "10.1", "10.2"
POLICY = PolicyConfig(upstream=(parse_upstream("127.0.0.1#5301"),))


@contextmanager
def namespace() -> Iterator[str]:
    name = f"gfw-dns-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


@contextmanager
def running(*argv: str | Path, ready: bool = False) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(argv, stdout=subprocess.PIPE if ready else subprocess.DEVNULL, text=True)
    try:
        if ready and process.stdout:
            assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.terminate()
        process.wait(5)
        if process.stdout:
            process.stdout.close()


def ask(namespace: str, names: list[str]) -> dict[str, list[str]]:
    command = ["ip", "netns", "exec", namespace, sys.executable, HERE / "ask.py", "127.0.0.1", "53"]
    output = subprocess.run(command, input="\n".join(names), capture_output=True, text=True, check=True, timeout=60)
    found: dict[str, list[str]] = json.loads(output.stdout)
    return found


def members(namespace: str, name: str) -> set[str]:
    command = ["ip", "netns", "exec", namespace, "ipset", "save", name]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {str(ip_address(line.split()[2])) for line in output.splitlines() if line.startswith("add")}


@contextmanager
def host(policy: Policy, folder: Path) -> Iterator[str]:
    """A host that loaded the seed and runs dnsmasq with the file, a clean resolver and an ISP's beside it."""
    conf = folder / "gfwlist.conf"
    cover = policy.cover()
    conf.write_text(dnsmasq.paired(cover, POLICY, unset=policy.unset(cover)))
    base = folder / "dnsmasq.conf"
    base.write_text(
        "no-resolv\nno-hosts\nserver=127.0.0.1#5302\nlisten-address=127.0.0.1\nbind-interfaces\nuser=root\n"
        f"pid-file={folder}/pid\nconf-file={conf}\ncache-size=0\n"
    )
    folder.chmod(0o755)
    with namespace() as name:
        inside = ("ip", "netns", "exec", name)
        subprocess.run([*inside, "ipset", "restore"], input=ipset.seed(POLICY, policy.seeds()), text=True, check=True)
        stub = (*inside, sys.executable, HERE / "stub_resolver.py", "127.0.0.1")
        with (
            running(*stub, "5301", CLEAN, ready=True),
            running(*stub, "5302", ISP, ready=True),
            running(*inside, "dnsmasq", "--keep-in-foreground", f"--conf-file={base}"),
        ):
            deadline = time.monotonic() + 5
            while not (folder / "pid").exists():
                assert time.monotonic() < deadline, "dnsmasq did not start"
                time.sleep(0.02)
            yield name


def sample(policy: Policy, count: int) -> list[str]:
    """Names of every kind: listed, above, below, beside; always the same ones."""
    chosen = random.Random(51820)
    blocks = chosen.sample(sorted(policy.blocks), min(60, len(policy.blocks)))
    listed = [*blocks, *policy.exceptions, *policy.under]
    names = {"example.com", "free.example.org"}
    for name in listed:
        names |= {name, f"www.{name}", f"not{name}"}
        if "." in name.partition(".")[2]:
            names.add(name.partition(".")[2])
    return sorted(chosen.sample(sorted(names), min(count, len(names))))


@pytest.mark.parametrize("source", ["our own list", "the newest real list"])
def test_two_hundred_names_have_the_resolver_and_the_set_that_the_policy_says(
    source: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = FIXTURES / "list.txt" if source == "our own list" else request.getfixturevalue("real_lists")[-1]
    policy = gfwtools.compile(decode(path.read_bytes()).text, allow=["allowed.google.com"], deny=["denied.example"])
    names = [*sample(policy, 200), "allowed.google.com", "x.denied.example"]
    # What an exception frees only under a name has a test of its own below.
    names = [name for name in names if not (policy.lookup(name).matched or "").startswith("*.")]
    with host(policy, tmp_path) as namespace:
        seeds = members(namespace, "gfwlist")
        assert seeds == {"127.0.0.1", "85.17.73.31"}
        answers = ask(namespace, names)
        tunnelled = [name for name in names if policy.lookup(name).verdict == "tunnel"]
        assert len(tunnelled) > 20
        for name in names:
            net = CLEAN if name in tunnelled else ISP
            assert answers[name] == [address(name, net), str(ip_address(address(name, net, 6)))], name
        assert members(namespace, "gfwlist") == seeds | {address(name, CLEAN) for name in tunnelled}
        assert members(namespace, "gfwlist6") == {str(ip_address(address(name, CLEAN, 6))) for name in tunnelled}


def test_an_exception_under_a_name_is_asked_of_the_usual_resolver(
    tmp_path: Path,
) -> None:
    # A fact about dnsmasq 2.90, kept here so that a later one is noticed: no wildcard in set lines.
    policy = gfwtools.compile(
        "||tokenplus.app\n@@||*.tokenplus.app\n|http://85.17.73.31/", allow=["named.tokenplus.app"]
    )
    with host(policy, tmp_path) as namespace:
        answers = ask(namespace, ["tokenplus.app", "www.tokenplus.app", "named.tokenplus.app", "x.named.tokenplus.app"])
        assert answers["tokenplus.app"][0] == address("tokenplus.app", CLEAN)
        assert answers["www.tokenplus.app"][0] == address("www.tokenplus.app", ISP)
        assert address("www.tokenplus.app", ISP) in members(namespace, "gfwlist")
        for name in ("named.tokenplus.app", "x.named.tokenplus.app"):
            assert answers[name][0] == address(name, ISP)
            assert address(name, ISP) not in members(namespace, "gfwlist")

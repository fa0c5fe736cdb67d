"""The lab proves itself: it blocks and lies as an ISP does, its tunnel is real, and it goes without a trace."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import host_tree
import pytest
from conftest import PACKAGES, lacking
from counting import Count
from fresh_host import HERE, MAIN, RESTART, FreshHost
from lab import (
    BLOCKED,
    BLOCKED6,
    CLEAN,
    ENDPOINT,
    FREE,
    FREE6,
    GATEWAY_WAN,
    GATEWAY_WAN6,
    ISP_DNS,
    POISON,
    TUNNEL,
    TUNNEL6,
    Lab,
)

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """One for the tests that only look."""
    with Lab() as lab:
        yield lab


def ask(host: FreshHost, server: str, name: str) -> str:
    return host.run(sys.executable, HERE / "ask.py", server, "53", stdin=name, code=None).stdout


# ------------------------------------------------------------ the ISP


def test_the_isps_resolver_lies_about_a_blocked_name_and_not_about_a_free_one(lab: Lab) -> None:
    for host in (lab.gateway, lab.client):
        answer = ask(host, ISP_DNS, "blocked.example")
        assert POISON in answer
        assert BLOCKED not in answer
        assert BLOCKED6 not in answer
        assert FREE in ask(host, ISP_DNS, "free.example")


def test_the_clean_resolver_is_not_reached_directly(lab: Lab) -> None:
    before = lab.leaked()
    assert ask(lab.gateway, CLEAN, "blocked.example") == ""
    assert lab.leaked() > before


def test_the_blocked_site_is_not_reached_directly_and_the_isp_counts_the_attempts(lab: Lab) -> None:
    for host in (lab.gateway, lab.client):
        for address in (BLOCKED, BLOCKED6):
            before = lab.leaked()
            assert lab.visit(host, address, 0.5) == "error: timed out"
            assert lab.leaked() > before


def test_the_free_site_is_reached_with_the_gateways_address(lab: Lab) -> None:
    before = lab.leaked()
    assert lab.visit(lab.gateway, FREE) == GATEWAY_WAN
    assert lab.visit(lab.client, FREE) == GATEWAY_WAN  # translated
    assert lab.visit(lab.gateway, FREE6) == GATEWAY_WAN6
    assert lab.visit(lab.client, FREE6) == "fd00:1::10"  # IPv6 is routed
    assert lab.leaked() == before


# ------------------------------------------------------------ the tunnel


def test_what_is_routed_into_the_tunnel_comes_out_with_its_address_and_passes_the_isp_sealed() -> None:
    with Lab() as lab:
        lab.gateway.run("ip", "route", "add", BLOCKED, "dev", "wg0")
        lab.gateway.run("ip", "route", "add", CLEAN, "dev", "wg0")
        sealed = Count(lab.isp, "prerouting", f"iifname gw0 ip daddr {ENDPOINT} udp dport 51820")
        assert lab.visit(lab.gateway, BLOCKED) == TUNNEL
        assert BLOCKED in ask(lab.gateway, CLEAN, "blocked.example")
        assert lab.gateway.run("ping", "-c", "1", "-W", "2", "10.7.0.1").returncode == 0
        assert sealed.packets >= 5
        assert lab.leaked() == 0


def test_the_tunnel_has_ipv6_where_it_is_asked_for() -> None:
    with Lab(ipv6=True) as lab:
        lab.gateway.run("ip", "-6", "route", "add", BLOCKED6, "dev", "wg0")
        assert lab.visit(lab.gateway, BLOCKED6) == TUNNEL6
        assert lab.leaked() == 0


@pytest.mark.parametrize(("rp_filter", "src_valid_mark"), [(0, 0), (1, 1), (2, 0)])
def test_the_gateways_sysctls_are_as_asked(rp_filter: int, src_valid_mark: int) -> None:
    with Lab(rp_filter=rp_filter, src_valid_mark=src_valid_mark) as lab:
        for interface in ("all", "wan0", "lan0"):
            name = f"net.ipv4.conf.{interface}.rp_filter"
            assert lab.gateway.run("sysctl", "-n", name).stdout == f"{rp_filter}\n"
        assert lab.gateway.run("sysctl", "-n", "net.ipv4.conf.all.src_valid_mark").stdout == f"{src_valid_mark}\n"


def test_a_count_counts_what_matches_and_nothing_else(lab: Lab) -> None:
    dropped = Count(lab.isp, "prerouting", f"ip daddr {BLOCKED} tcp dport 80")
    passed = Count(lab.isp, "prerouting", f"ip daddr {FREE} tcp dport 80 tcp flags syn / fin,syn,rst,ack")
    assert lab.visit(lab.gateway, FREE) == GATEWAY_WAN
    assert (dropped.packets, passed.packets) == (0, 1)
    lab.visit(lab.gateway, BLOCKED, 0.3)
    assert (dropped.packets, passed.packets) == (1, 1)


# ------------------------------------------------------------ nothing of the machine inside

PACKAGE_FILES = ("/etc/default/dnsmasq", "/etc/dnsmasq.conf", "/etc/init.d/dnsmasq", "/usr/lib/tmpfiles.d/dnsmasq.conf")


@pytest.mark.parametrize("form", ["", "debian-dnsmasq"])
def test_a_host_has_no_other_files_than_the_tests_wrote(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv(host_tree.FORM, form)
    with tarfile.open(fileobj=io.BytesIO(host_tree.archive(form != ""))) as tar:
        written = {f"/{entry.name}" for entry in tar if not entry.isdir()}
    with FreshHost() as host:
        tops = [f"/{top}" for top in host_tree.TOPS]
        assert set(host.run("find", *tops, "!", "-type", "d").stdout.split()) == written


@pytest.mark.parametrize(("form", "there"), [("", ()), ("debian-dnsmasq", PACKAGE_FILES)])
def test_only_the_debian_form_has_the_files_of_the_package(
    monkeypatch: pytest.MonkeyPatch, form: str, there: tuple[str, ...]
) -> None:
    monkeypatch.setenv(host_tree.FORM, form)
    with FreshHost() as host:
        assert host.run("ls", *PACKAGE_FILES, code=None).stdout.split() == list(there)


def test_in_the_debian_form_dnsmasq_is_started_as_the_package_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(host_tree.FORM, "debian-dnsmasq")
    with FreshHost() as host:
        host.write("/etc/dnsmasq.conf", "user=root\n")
        host.write("/etc/dnsmasq.d/here", "address=/here.example/192.0.2.7\n")
        host.write("/etc/dnsmasq.d/here.dpkg-old", "nonsense\n")
        host.write("/etc/restart-dns", RESTART)
        host.run("sh", "/etc/restart-dns")
        assert "192.0.2.7" in ask(host, "127.0.0.1", "here.example")


def test_a_form_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(host_tree.FORM, "debain")
    with pytest.raises(ValueError, match=r"^GFWTOOLS_LAB=debain: no such form"), FreshHost():
        pass


def test_no_variable_of_the_machine_reaches_a_program_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/of-the-machine")
    with FreshHost() as host:
        assert "of-the-machine" not in host.run("env").stdout


def test_what_a_test_writes_to_a_temporary_folder_in_var_is_seen_in_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        Path(folder, "file").write_text("seen\n")
        with FreshHost() as host:
            assert host.read(f"{folder}/file") == "seen\n"


# ------------------------------------------------------------ nothing of it outside


def test_a_hosts_files_are_its_own() -> None:
    path = f"/etc/gfwtools-lab-{os.getpid()}"
    with FreshHost() as one, FreshHost() as other:
        one.write(path, "mine\n")
        assert one.read(path) == "mine\n"
        assert other.run("cat", path, code=None).returncode != 0
        assert not Path(path).exists()


def test_two_labs_at_once_have_a_wg0_each_and_their_sockets_do_not_meet(lab: Lab) -> None:
    with Lab() as other:
        names = [host.name for each in (lab, other) for host in (each.client, each.gateway, each.isp, each.far)]
        assert len(set(names)) == 8
        assert all(str(os.getpid()) in name for name in names)
        keys = {
            host.run("wg", "show", "wg0", "public-key").stdout
            for each in (lab, other)
            for host in (each.gateway, each.far)
        }
        assert len(keys) == 4
        other.gateway.run("ip", "route", "add", BLOCKED, "dev", "wg0")
        assert other.visit(other.gateway, BLOCKED) == TUNNEL


def test_dnsmasq_is_gone_before_it_is_started_again() -> None:
    with FreshHost() as host:
        host.write("/etc/dnsmasq.conf", MAIN)
        host.write("/etc/restart-dns", RESTART)
        for _ in range(30):
            assert host.run("sh", "/etc/restart-dns").stderr == ""


class Traces:
    """What hosts are made of, as seen from outside."""

    def __init__(self, names: Iterable[str], folder: Path) -> None:
        self.namespaces = [Path("/run/netns", name) for name in names]
        self._networks = {os.stat(path).st_ino for path in self.namespaces}
        self._folder = folder

    def processes(self) -> list[str]:
        """Processes in one of the networks."""
        networks = self._networks - self._reused()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                inode = os.stat(process / "ns" / "net").st_ino
                command = (process / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
            if inode in networks:
                found.append(command)
        return found

    def _reused(self) -> set[int]:
        """Inodes that the kernel has given to another test's networks since ours have gone."""
        found = set()
        for path in Path("/run/netns").iterdir():
            with suppress(FileNotFoundError):
                found.add(path.stat().st_ino)
        return found - {path.stat().st_ino for path in self.namespaces if path.exists()}

    def left(self) -> list[str]:
        ours = {str(self._folder), *map(str, self.namespaces)}
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        return [
            *(str(path) for path in self.namespaces if path.exists()),
            *self.processes(),
            *map(str, self._folder.iterdir()),
            *(mount for mount in mounts if mount in ours or mount.startswith(f"{self._folder}/")),
        ]


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Temporary files of this test alone."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def traces_of(lab: Lab, folder: Path) -> Traces:
    return Traces((host.name for host in (lab.client, lab.gateway, lab.isp, lab.far)), folder)


def test_after_it_nothing_is_left(own_folder: Path) -> None:
    with Lab() as lab:
        lab.gateway.run("sh", "/etc/restart-dns")
        traces = traces_of(lab, own_folder)
        commands = " ".join(traces.processes())
        assert all(program in commands for program in ("wireguard-go", "dnsmasq", "site.py", "sleep"))
        assert all(path.exists() for path in traces.namespaces)
    assert traces.left() == []


@pytest.mark.parametrize("stage", ["_links", "_tunnel", "_services"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_when_its_building_fails_nothing_is_left(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: type[BaseException]
) -> None:
    seen: list[Traces] = []
    real = getattr(Lab, stage)

    def fail(lab: Lab) -> None:
        real(lab)
        seen.append(traces_of(lab, own_folder))
        raise error

    monkeypatch.setattr(Lab, stage, fail)
    with pytest.raises(error), Lab():
        pass
    assert seen[0].left() == []


@pytest.mark.parametrize("program", ["ip", "unshare"])
def test_when_a_host_cannot_be_made_the_reason_is_told_and_nothing_is_left(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    fake = tmp_path / "bin" / program
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    host = FreshHost()
    with pytest.raises((AssertionError, subprocess.CalledProcessError)), host:
        pass
    assert not Path("/run/netns", host.name).exists()
    assert list(own_folder.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_run_that_is_interrupted_leaves_nothing(own_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "conftest.py").write_text((HERE / "conftest.py").read_text())
    (run / "test_waits.py").write_text(
        f"import sys, time\nsys.path[:0] = {[str(HERE), str(HERE.parent)]!r}\nfrom lab import Lab\n\n"
        "def test_waits():\n    with Lab():\n"
        f"        open({str(run / 'up')!r}, 'w').close()\n        time.sleep(60)\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(run),
        "-c",
        os.devnull,
        str(run),
    ]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (run / "up").exists():
            assert child.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        traces = Traces((path.name for path in Path("/run/netns").glob(f"gfw-{child.pid}-*")), own_folder)
        assert len(traces.namespaces) == 4
        child.send_signal(number)
        assert child.wait(20) == pytest.ExitCode.INTERRUPTED
    finally:
        child.kill()
        child.wait()
    assert traces.left() == []


def test_a_program_that_says_nothing_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    import fresh_host

    with FreshHost() as host, monkeypatch.context() as impatient:
        impatient.setattr(fresh_host._wait_until_ready, "__defaults__", (0.2,))
        with pytest.raises(AssertionError, match=r"is not ready after 0\.2 s"):
            host.start("sleep", "60", ready=True)


# ------------------------------------------------------------ what it needs


def test_what_lacks_is_named_with_the_package_that_has_it(tmp_path: Path) -> None:
    there = tmp_path / "tun"
    there.touch()
    assert lacking(0, lambda program: True, there) == []
    assert lacking(0, lambda program: program not in ("wg", "nft"), there) == [
        "programs are missing: apt-get install nftables wireguard-tools"
    ]
    assert "not root" in lacking(1000, lambda program: True, there)[0]
    assert "modprobe tun" in lacking(0, lambda program: True, tmp_path / "none")[0]


def test_every_program_that_it_needs_is_in_the_projects_list_of_packages() -> None:
    text = (HERE.parent.parent / "scripts" / "test-packages").read_text()
    assert [f"{program}:{package}" for program, package in PACKAGES.items() if f"{program}:{package}" not in text] == []

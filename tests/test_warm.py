"""``warm`` asks for every domain once, loses no answer, and goes on where it was stopped."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from cli import gfwtools
from click.testing import CliRunner
from tools import needs

from gfwtools.cli import Context
from gfwtools.cli.warm import warm as command
from gfwtools.config.model import Config, PolicyConfig
from gfwtools.dnsmasq.conf import SNIPPET
from gfwtools.errors import ResolverError, StoreError
from gfwtools.update.warm import QPS, TIMEOUTS, names_of, warm

POLICY = PolicyConfig()


class Resolver:
    """A resolver on a port of its own. The first label of a name says how it is answered."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, str]] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()
        threading.Thread(target=self._serve_tcp, daemon=True).start()

    def close(self) -> None:
        self._socket.close()
        self._listener.close()

    def _serve_tcp(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                with self._listener.accept()[0] as connection:
                    query = dns.message.from_wire(connection.recv(4096)[2:])
                    answer = dns.message.make_response(query)
                    kind = dns.rdatatype.to_text(query.question[0].rdtype)
                    texts = [f"198.51.100.{n}" if kind == "A" else f"2001:db8::{n}" for n in range(1, 101)]
                    answer.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", kind, *texts))
                    connection.sendall(answer.to_wire(prepend_length=True))

    def _serve(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                self._reply(*self._socket.recvfrom(4096))

    def _reply(self, data: bytes, peer: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked[name, kind] += 1
        how = name.removeprefix("www.").split(".")[0]
        if how == "silent" or (how == "lossy" and self.asked[name, kind] == 1):
            return
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if how == "broken":
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif how == "gone" or (how == "bare" and name.startswith("www.")):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif how == "large":
            answer.flags |= dns.flags.TC
        elif how != "empty" and kind in ("A", "AAAA"):
            text = "198.51.100.7" if kind == "A" else "2001:db8::7"
            answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, text))
        self._socket.sendto(answer.to_wire(), peer)


@pytest.fixture
def resolver() -> Iterator[Resolver]:
    resolver = Resolver()
    yield resolver
    resolver.close()


@pytest.fixture
def root(tmp_path: Path, resolver: Resolver) -> Path:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/dnsmasq.conf").write_text(f"port={resolver.port}\nlisten-address=127.0.0.1\n")
    return tmp_path


def domains(root: Path, *names: str) -> Config:
    config = Config(root=root)
    config.paths.state_dir.mkdir(parents=True, exist_ok=True)
    config.paths.domains("gfwlist").write_text("".join(f"{name}\n" for name in names))
    return config


def answers(config: Config) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads(config.paths.warm(POLICY.name).read_text())
    return found


def test_each_domain_and_its_www_are_asked_for_both_families(root: Path, resolver: Resolver) -> None:
    config = domains(root, "one.example", "two.example")
    found = warm(config, POLICY)
    assert (found.answered, found.empty, found.failed, found.left) == (4, 0, 0, 0)
    for name in ("one.example", "www.one.example", "two.example", "www.two.example"):
        assert answers(config)[name] == ["198.51.100.7", "2001:db8::7"]
        assert resolver.asked[name, "A"] == resolver.asked[name, "AAAA"] == 1


def test_no_name_is_asked_for_twice() -> None:
    names = ["a.example", "www.a.example", "b.example", "www.b.example"]
    assert list(names_of(["a.example", "www.a.example", "b.example"])) == names


def test_the_www_of_a_domain_that_is_an_exception_is_not_asked_for(root: Path, resolver: Resolver) -> None:
    (root / "list.txt").write_text("[AutoProxy]\n||one.example\n||two.example\n@@||www.one.example\n")
    gfwtools(root, "update", "--source", str(root / "list.txt"))
    assert warm(Config(root=root), POLICY).answered == 3
    assert resolver.asked["www.two.example", "A"] == 1
    assert resolver.asked["www.one.example", "A"] == 0


def test_a_name_without_an_address_is_empty_and_one_with_an_error_has_failed(root: Path, resolver: Resolver) -> None:
    config = domains(root, "bare.example", "broken.example", "empty.example", "gone.example")
    found = warm(config, POLICY)
    assert (found.answered, found.empty, found.failed) == (1, 5, 2)
    assert found.failures == {"SERVFAIL": 2}
    assert "broken.example" not in answers(config)
    assert answers(config)["gone.example"] == []
    # There is no record of any type under a name that does not exist.
    assert resolver.asked["gone.example", "AAAA"] == 0


def test_an_answer_that_is_lost_is_asked_for_again(root: Path) -> None:
    found = warm(domains(root, *(f"lossy.{number}.example" for number in range(20))), POLICY)
    assert (found.answered, found.failed) == (40, 0)


def test_what_does_not_fit_into_a_datagram_is_asked_for_by_tcp(root: Path) -> None:
    config = domains(root, "large.example")
    assert warm(config, POLICY).answered == 2
    assert len(answers(config)["large.example"]) == 200


def test_a_name_that_nobody_answers_for_costs_two_seconds_a_round(root: Path, resolver: Resolver) -> None:
    found = warm(domains(root, "silent.example", "one.example"), POLICY)
    assert found.answered == 2
    assert found.failures == {"no answer": 2}
    # Two rounds, in each of them two questions; without an answer to the first kind the second is not asked.
    assert [resolver.asked["silent.example", kind] for kind in ("A", "AAAA")] == [4, 0]
    assert sum(TIMEOUTS) == 2


def test_where_nobody_answers_at_all_it_says_so(root: Path, resolver: Resolver) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        (root / "etc/dnsmasq.conf").write_text(f"port={silent.getsockname()[1]}\n")
        domains(root, "one.example")
        assert "dnsmasq does not answer at 127.0.0.1#" in gfwtools(root, "warm", code=1).stderr


def test_without_a_list_it_says_what_to_run(root: Path) -> None:
    with pytest.raises(ResolverError, match="gfwtools bootstrap --interface wg0"):
        warm(Config(root=root), POLICY)
    (root / "etc/dnsmasq.d").mkdir()
    (root / "etc/dnsmasq.d" / SNIPPET).touch()
    with pytest.raises(ResolverError, match="gfwtools update --reload"):
        warm(Config(root=root), POLICY)


def test_on_a_full_disk_it_asks_all_the_same_and_says_that_nothing_is_kept(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(files: object) -> None:
        raise StoreError("No space left on device")

    monkeypatch.setattr("gfwtools.update.warm.atomic.write_all", full)
    monkeypatch.setattr("gfwtools.update.warm.SAVE_EVERY", 0)
    domains(root, "one.example", "two.example")
    result = CliRunner().invoke(command, [], obj=Context(None, root, 0))
    assert result.exit_code == 0
    assert "gfwlist: 4 answered, 0 without an address, 0 failed" in result.output
    assert "the next run does not continue where this one ended: No space left on device" in result.output


def test_the_next_run_goes_on_where_the_limit_was(root: Path) -> None:
    config = domains(root, *(f"{number}.example" for number in range(5)))
    assert warm(config, POLICY, limit=4).answered == 4
    found = warm(config, POLICY)
    assert (found.skipped, found.answered) == (4, 6)
    assert warm(config, POLICY).total == 0
    assert warm(config, POLICY, again=True).answered == 10


def test_answers_of_an_hour_ago_and_from_before_the_sets_are_asked_for_again(root: Path) -> None:
    config = domains(root, "one.example")
    warm(config, POLICY)
    assert warm(config, POLICY, sets_made=time.clock_gettime(time.CLOCK_BOOTTIME)).answered == 2
    old = time.time() - 3700
    os.utime(config.paths.warm(POLICY.name), (old, old))
    assert warm(config, POLICY).answered == 2


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a":' * 5000, "{", '{"one.example": 7}', '{"one.example": ["x"]}', '{"one.example": [1]}']
)
def test_a_damaged_file_is_written_anew(root: Path, text: str) -> None:
    config = domains(root, "one.example")
    config.paths.warm(POLICY.name).write_text(text)
    assert warm(config, POLICY).answered == 2
    assert set(answers(config)) == {"one.example", "www.one.example"}


def test_the_rate_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, sleep = 1000.0, asyncio.sleep

    async def go_on(seconds: float) -> None:
        nonlocal now
        now += seconds
        await sleep(0)

    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(asyncio, "sleep", go_on)
    found = warm(domains(root, *(f"{number}.example" for number in range(20))), POLICY, qps=1000)
    assert found.answered == 40  # by 80 questions, the first of which need not wait
    assert round(found.seconds, 6) == 0.079


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_it_can_be_interrupted_and_keeps_what_it_has(root: Path, resolver: Resolver, number: int, code: int) -> None:
    config = domains(root, *(f"{number}.example" for number in range(500)))
    argv = [sys.executable, "-m", "gfwtools", "--root", str(root), "warm", "--qps", "400", "--json"]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while resolver.asked.total() < 150:  # each of the first hundred names, and half of them for IPv6 as well
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(number)
    output, errors = child.communicate(timeout=10)
    assert child.returncode == code, errors
    assert errors == ""
    (found,) = json.loads(output)
    assert found["answered"] > 0
    assert found["left"] == 1000 - found["answered"]
    assert found["stopped"] == signal.Signals(number).name
    assert len(answers(config)) == found["answered"]
    assert warm(config, POLICY).skipped == found["answered"]


def test_the_json_has_the_documented_shape(root: Path) -> None:
    domains(root, "one.example")
    (found,) = json.loads(gfwtools(root, "warm", "--json").stdout)
    numbers = ["total", "skipped", "answered", "empty", "failed", "left", "addresses"]
    assert set(found) == {"policy", "failures", "seconds", "stopped", "unsaved", *numbers}
    assert all(isinstance(found[key], int) for key in numbers)
    assert found["stopped"] is None
    assert found["unsaved"] is None


def test_the_rate_that_the_help_tells_is_the_one_of_the_library() -> None:
    assert [option.default for option in command.params if option.name == "qps"] == [QPS]


def test_the_summary_is_plain_text_in_a_pipe(root: Path) -> None:
    domains(root, "one.example", "gone.example")
    result = gfwtools(root, "warm")
    assert "2 answered, 2 without an address, 0 failed" in result.stdout
    assert "\x1b" not in result.stdout
    assert result.stderr == ""


def test_of_4300_domains_no_answer_is_lost(tmp_path: Path) -> None:
    ports = []
    for _ in range(2):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    local, upstream = ports
    common = "listen-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\n"
    known = "address=/example/198.51.100.7\naddress=/example/2001:db8::7\n"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/dnsmasq.conf").write_text(f"port={local}\n{common}server=127.0.0.1#{upstream}\n")
    (tmp_path / "up.conf").write_text(f"port={upstream}\n{common}{known}")
    config = domains(tmp_path, *(f"site{number}.example" for number in range(4300)))
    argv = [needs("dnsmasq"), "--keep-in-foreground", "--user=", "--pid-file="]
    daemons = [subprocess.Popen([*argv, f"--conf-file={tmp_path / name}"]) for name in ("up.conf", "etc/dnsmasq.conf")]
    try:
        time.sleep(0.5)
        result = gfwtools(tmp_path, "warm", "--again", "--json")
    finally:
        for daemon in daemons:
            daemon.kill()
            daemon.wait()
    (found,) = json.loads(result.stdout)
    assert (found["answered"], found["empty"], found["failed"], found["left"]) == (8600, 0, 0, 0)
    assert all(len(addresses) == 2 for addresses in answers(config).values())

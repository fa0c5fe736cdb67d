"""``status`` fits on a screen, says what it could not read, and its JSON has the documented shape."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from cli import gfwtools
from recorder import Recorder
from terminals import environment, terminal, written

from gfwtools.cli.status import fit_height
from gfwtools.cli.status_screen import Line, Tone, history_lines, lines
from gfwtools.config.model import Config, PolicyConfig
from gfwtools.diagnose.status import Marked, PolicyStatus, Service, Status, Tunnel, status
from gfwtools.dnsmasq.conf import SNIPPET
from gfwtools.plumbing.plan import Kind, Piece, State
from gfwtools.storage.lock import Run
from gfwtools.storage.state import HISTORY, Change, PolicyState, read_state, write_state

LIST = "[AutoProxy 0.2.9]\n! Last Modified: {date}\n||google.com\n||youtube.com\n"
KEYS = {
    "bootstrapped",
    "readable",
    "problem",
    "checked",
    "checked_age",
    "error",
    "layout",
    "backend",
    "manager",
    "init",
    "services",
    "policies",
    "findings",
    "pieces",
}
POLICY_KEYS = {
    "policy",
    "interface",
    "source",
    "starter",
    "list_date",
    "list_age",
    "updated",
    "updated_age",
    "domains",
    "counts",
    "added",
    "removed",
    "sets",
    "marked",
    "tunnel",
    "history",
}
IPTABLES = """Chain GFWLIST (2 references)
    pkts      bytes target     prot opt in     out     source               destination
      44     4149 RETURN     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ctdir REPLY
      13      737 MARK       0    --  *      *       0.0.0.0/0            0.0.0.0/0            match-set gfwlist dst /* gfwtools: policy gfwlist */ MARK set 0xca6c
     900    90000 MARK       0    --  *      *       0.0.0.0/0            0.0.0.0/0            match-set work dst /* gfwtools: policy work */ MARK set 0xca6d
"""
NFTABLES = """table inet gfwtools {
	chain GFWLIST {
		ct direction reply return comment "gfwtools: an answer goes the way it came"
		ip daddr @gfwlist4 counter packets 12 bytes 1000 meta mark set 0x0000ca6c comment "gfwtools: policy gfwlist"
		ip daddr @gfwlist_seed4 counter packets 2 bytes 60 meta mark set 0x0000ca6c comment "gfwtools: policy gfwlist"
		ip6 daddr @gfwlist6 counter packets 1 bytes 40 meta mark set 0x0000ca6c comment "gfwtools: policy gfwlist"
		ip daddr @work4 counter packets 5 bytes 500 meta mark set 0x0000ca6d comment "gfwtools: policy work"
	}
}
"""


def updated(root: Path, date: datetime) -> None:
    root.joinpath("list.txt").write_text(LIST.format(date=format_datetime(date)))
    gfwtools(root, "update", "--source", str(root / "list.txt"))


def change(number: int) -> Change:
    date = f"2026-08-{number + 1:02}T05:00:00+00:00"
    return Change(date, "https://mirror.example/a/very/long/path.txt", "ab" * 32, {}, 4300 + number, number, 2)


def full() -> Status:
    """A status with everything in it."""
    state = PolicyState(
        source="https://testingcf.jsdelivr.net/gh/gfwlist/gfwlist/gfwlist.txt",
        list_date="Thu, 06 Aug 2026 05:36:28 +0000",
        updated="2026-08-06T06:00:00+00:00",
        counts={"read": 8404, "applied": 4312, "widened": 90, "redundant": 3900, "dropped": {"keyword": 102}},
        domains=4312,
        history=(change(3),),
    )
    sets = (("gfwlist", 5120), ("gfwlist6", 311), ("gfwlist_direct", None))
    marked, tunnel = Marked(1234567, 9876543210), Tunnel(True, 42, 123456789, 1234)
    policy = PolicyStatus(PolicyConfig(), state, 90000, 7300, sets, marked, tunnel)
    rules = (f"ip rule {5180 + number} (IPv4)" for number in range(11))
    findings = tuple(Piece(rule, State.MISSING, "pref 5181", Kind.RULE, remedy="gfwtools up") for rule in rules)
    service = Service("gfwtools.service", True, False)
    run = Run(
        "2026-08-09T06:00:00+00:00", "no source gave a usable list: " + ", ".join(["mirror.example: timed out"] * 5)
    )
    return Status(True, True, "", run, "paired", "iptables", "systemd", "systemd", (policy,), (service,), findings, 40)


def test_a_full_screen_has_no_line_over_80_columns_and_fits_on_one_screen() -> None:
    text = [str(line) for line in lines(full())]
    assert max(map(len, text)) <= 80
    assert len(text) <= 40
    for words in (
        "jsdelivr",
        "(25 h ago)",
        "4,312 through wg0 (last time +3, -2)",
        "5,120",
        "gfwlist_direct missing",
        "1,234,567 packets, 9.2 GiB",
        "handshake 42 s ago",
        "117.7 MiB received",
        "gfwtools.service: enabled, not running",
        "and failed: no source gave a usable list: mirror.example: timed out",
        "11 of 40 pieces are not OK",
        "fix: gfwtools up",
        "and 3 more; see: gfwtools check host",
    ):
        assert words in " ".join(" ".join(text).split())


def test_the_colour_of_a_row_comes_from_what_was_seen_not_from_its_words() -> None:
    policy = full().policies[0]
    shown = lines(full())
    tones = {line.label.strip(): line.tone for line in shown if line.label.strip()}
    assert {label for label, tone in tones.items() if tone is Tone.BAD} == {"sets", "service", "checks"}
    down = policy.state._replace(source="https://down.example/missing")
    calm = lines(replace(full(), policies=(replace(policy, state=down),), findings=()))
    tones = {line.label.strip(): line.tone for line in calm}
    assert (tones["list"], tones["checks"]) == (Tone.PLAIN, Tone.GOOD)


@pytest.mark.parametrize("width", [40, 60, 80])
def test_every_width_is_kept(width: int) -> None:
    assert max(len(str(line)) for line in lines(full(), width)) <= width


def test_the_json_has_the_documented_shape() -> None:
    document: dict[str, Any] = json.loads(json.dumps(full().to_json()))
    assert set(document) == KEYS
    (policy,) = document["policies"]
    assert set(policy) == POLICY_KEYS
    assert policy["sets"][2] == {"name": "gfwlist_direct", "size": None}
    assert set(policy["marked"]) == {"packets", "bytes"}
    assert set(policy["tunnel"]) == {"up", "handshake_age", "received", "sent"}
    assert set(policy["history"][0]) == {
        *("date", "source", "digest", "counts", "domains", "added", "removed", "forced"),
    }
    assert set(document["findings"][0]) == {"name", "state", "detail", "remedy"}
    assert set(document["services"][0]) == {"name", "enabled", "running"}


def test_a_host_that_was_never_bootstrapped_says_so_and_how(tmp_path: Path) -> None:
    result = gfwtools(tmp_path, "status")
    assert "never bootstrapped; run: gfwtools bootstrap --interface wg0" in result.stdout
    assert "none yet; run: gfwtools update --reload" in result.stdout
    document = json.loads(gfwtools(tmp_path, "status", "--json").stdout)
    assert set(document) == KEYS
    assert set(document["policies"][0]) == POLICY_KEYS
    assert document["bootstrapped"] is False
    assert document["findings"] is None
    assert list(tmp_path.iterdir()) == []


def test_the_list_is_told_with_its_source_date_age_and_last_change(tmp_path: Path) -> None:
    updated(tmp_path, datetime.now(UTC) - timedelta(days=3, minutes=1))
    text = " ".join(gfwtools(tmp_path, "status").stdout.split())
    assert "list.txt" in text.replace(" ", "")  # a long path has two lines
    assert "(3 days ago)" in text
    assert "2 through wg0 (last time +2, -0)" in text
    (policy,) = json.loads(gfwtools(tmp_path, "status", "--json").stdout)["policies"]
    assert policy["starter"] is False
    assert policy["list_age"] // 60 == 3 * 24 * 60 + 1
    assert policy["updated_age"] < 60
    assert policy["counts"]["read"] == 2


def test_the_starter_list_is_called_so(tmp_path: Path) -> None:
    gfwtools(tmp_path, "update", "--offline")
    assert "no mirror has answered yet" in " ".join(gfwtools(tmp_path, "status").stdout.split())


@pytest.mark.parametrize(
    "date", ["Tue, 24 Nov 99999999999 00:00:00 +0000", "Tue, 24 Nov 2026 00:00:0 +000099999999999999999999"]
)
def test_a_date_that_no_calendar_has_is_shown_without_an_age(tmp_path: Path, date: str) -> None:
    source = tmp_path / "list.txt"
    source.write_text(LIST.format(date=date))
    gfwtools(tmp_path, "update", "--source", str(source))
    assert date in gfwtools(tmp_path, "status").stdout
    policy = json.loads(gfwtools(tmp_path, "status", "--json").stdout)["policies"][0]
    assert (policy["list_date"], policy["list_age"]) == (date, None)


def test_the_history_is_a_table_with_the_newest_update_first(tmp_path: Path) -> None:
    updated(tmp_path, datetime.now(UTC))
    tmp_path.joinpath("list.txt").write_text("[AutoProxy 0.2.9]\n||google.com\n||twitter.com\n||t.co\n")
    gfwtools(tmp_path, "update", "--source", str(tmp_path / "list.txt"))
    head, newest, oldest = gfwtools(tmp_path, "status", "--history").stdout.splitlines()
    assert head.split() == ["date", "domains", "added", "removed", "list", "source"]
    assert newest.split()[1:4] == ["3", "+2", "-1"]
    assert oldest.split()[1:4] == ["2", "+2", "0"]


def test_the_history_has_30_updates_at_most_and_fits_into_80_columns() -> None:
    state = PolicyState()
    for number in range(35):
        state = state.remember(change(number % 28))
    table = history_lines([PolicyStatus(PolicyConfig(), state)])
    assert len(table) == 1 + HISTORY
    assert max(len(str(line)) for line in table) <= 80


def test_an_ordinary_user_reads_the_files_and_is_told_to_be_root_for_the_rest(tmp_path: Path) -> None:
    updated(tmp_path, datetime.now(UTC))
    (tmp_path / "etc/dnsmasq.d" / SNIPPET).write_text("")
    seen = status(Config(root=tmp_path), Recorder(), root=False)
    assert seen.bootstrapped
    text = "\n".join(map(str, lines(seen)))
    assert text.count("not readable, run as root") == 4
    assert "2 through wg0" in text
    assert seen.findings is None


def test_the_counters_of_the_policys_own_mark_are_added_up_over_both_families() -> None:
    answers = {
        ("iptables", "-t", "mangle", "-nvxL", "GFWLIST"): IPTABLES,
        ("ip6tables", "-t", "mangle", "-nvxL", "GFWLIST"): IPTABLES.replace("13      737", " 7     1000"),
        ("ipset", "list", "-t", "gfwlist"): "Name: gfwlist\nNumber of entries: 3\n",
        ("ip", "-j", "link", "show", "dev", "wg0"): '[{"flags": ["UP"]}]',
        ("wg", "show", "wg0", "transfer"): "KEY=\t1452\t1876\nOTHER=\t8\t24\n",
        ("wg", "show", "wg0", "latest-handshakes"): f"KEY=\t{int(time.time()) - 30}\n",
    }
    tools = frozenset({"ip", "ipset", "iptables"})
    config = Config(host=Config().host._replace(backend="iptables"), root=Path("/nonexistent"))
    (policy,) = status(config, Recorder(answers, tools), root=True).policies
    assert policy.marked == Marked(20, 1737)
    assert policy.sets == (("gfwlist", 3), ("gfwlist6", None), ("gfwlist_direct", None))
    assert policy.tunnel is not None
    assert (policy.tunnel.received, policy.tunnel.sent, policy.tunnel.up) == (1460, 1900, True)
    assert policy.tunnel.handshake_age in range(30, 35)


def test_with_nftables_the_counters_and_the_sets_of_the_policy_are_told() -> None:
    ask = ("nft", "-j", "list", "set", "inet", "gfwtools")
    answers = {
        (*ask, "gfwlist4"): '{"nftables": [{"metainfo": {}}, {"set": {"elem": ["192.0.2.1", "192.0.2.2"]}}]}',
        (*ask, "gfwlist6"): '{"nftables": [{"set": {}}]}',
        ("nft", "list", "chain", "inet", "gfwtools", "GFWLIST"): NFTABLES,
    }
    config = Config(host=Config().host._replace(backend="nftables"), root=Path("/nonexistent"))
    seen = status(config, Recorder(answers, frozenset({"ip", "nft"})), root=True)
    (policy,) = seen.policies
    assert policy.marked == Marked(15, 1100)
    assert policy.sets is not None
    assert dict(policy.sets)["gfwlist4"] == 2
    assert dict(policy.sets)["gfwlist6"] == 0


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_what_a_tool_is_missing_for_is_not_known_and_not_said_to_be_missing(tmp_path: Path, backend: Any) -> None:
    (tmp_path / "etc/dnsmasq.d").mkdir(parents=True)
    (tmp_path / "etc/dnsmasq.d" / SNIPPET).touch()
    seen = status(Config(host=Config().host._replace(backend=backend), root=tmp_path), Recorder(), root=True)
    assert (seen.policies[0].sets, seen.policies[0].marked, seen.policies[0].tunnel) == (None, None, None)
    text = "\n".join(map(str, lines(seen)))
    assert text.count("not known; see the checks below") == 3
    assert "ip: no such program; install iproute2" in text


def test_the_text_of_others_reaches_no_terminal_as_it_is(tmp_path: Path) -> None:
    updated(tmp_path, datetime.now(UTC))
    state = read_state(tmp_path / "var/lib/gfwtools/state.json")
    evil = state.of("gfwlist")._replace(list_date="\x1b[2J", history=(change(1)._replace(source="\x1b[2J"),))
    write_state(tmp_path / "var/lib/gfwtools/state.json", state._replace(policies={"gfwlist": evil}))
    assert "\x1b" not in gfwtools(tmp_path, "status").stdout + gfwtools(tmp_path, "status", "--history").stdout


def test_a_screen_that_is_too_low_says_how_much_is_left_out() -> None:
    text = [Line(str(number), "") for number in range(30)]
    assert fit_height(text, 30) == text
    assert list(map(str, fit_height(text, 24))) == [*map(str, range(23)), "and 7 more lines; see: gfwtools status"]


def test_on_a_narrow_terminal_no_line_is_wider(tmp_path: Path) -> None:
    updated(tmp_path, datetime.now(UTC))
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 44, 0, 0))
    argv = [sys.executable, "-m", "gfwtools", "--root", str(tmp_path), "status"]
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment["TERM"] = "xterm"
    subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=terminal, check=True, timeout=30, env=environment)
    os.close(terminal)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", os.read(master, 65536).decode()).splitlines()
    os.close(master)
    assert max(map(len, shown)) <= 44
    assert any(line.startswith("domains") for line in shown)


def test_on_a_terminal_there_are_colours_unless_the_user_wants_none(tmp_path: Path) -> None:
    argv = ["-m", "gfwtools", "--root", str(tmp_path), "status"]
    coloured = written(argv, 80)
    assert "\x1b[31mnever bootstrapped; run: gfwtools bootstrap --interface wg0\x1b[0m" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert written(argv, 80, NO_COLOR="1") == written(argv, 80, TERM="dumb") == plain


def watching(root: Path, term: str) -> str:
    """What `status --watch` writes to a terminal until it is interrupted, after the first look."""
    argv = [sys.executable, "-m", "gfwtools", "--root", str(root), "status", "--watch"]
    with terminal(80) as (ours, theirs):
        child = subprocess.Popen(argv, stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment(TERM=term))
        shown = b""
        while b"none yet" not in shown:
            shown += os.read(ours, 65536)
        child.send_signal(2)
        assert child.communicate(timeout=30)[1].strip() == "gfwtools: interrupted"
        assert child.returncode == 130
        os.write(theirs, b"END")
        while not shown.endswith(b"END"):
            shown += os.read(ours, 65536)
    return shown.decode().removesuffix("END")


def test_watch_has_a_screen_of_its_own_and_gives_the_first_one_back(tmp_path: Path) -> None:
    shown = watching(tmp_path, "xterm")
    assert shown.startswith("\x1b[?1049h\x1b[?25l\x1b[2J\x1b[1;1H")
    assert shown.endswith("\x1b[?25h\x1b[?1049l")


def test_watch_writes_one_screen_after_the_other_where_the_cursor_cannot_move(tmp_path: Path) -> None:
    shown = watching(tmp_path, "dumb")
    assert shown.startswith("host       never bootstrapped")
    assert "\x1b" not in shown


def test_a_run_that_found_nothing_new_and_one_that_failed_are_told_with_their_time(tmp_path: Path) -> None:
    assert json.loads(gfwtools(tmp_path, "status", "--json").stdout)["checked"] is None
    updated(tmp_path, datetime.now(UTC))
    gfwtools(tmp_path, "update", "--source", str(tmp_path / "list.txt"))
    document = json.loads(gfwtools(tmp_path, "status", "--json").stdout)
    assert document["checked_age"] < 60
    assert document["error"] is None
    gfwtools(tmp_path, "update", "--source", str(tmp_path / "nothing.txt"), code=1)
    document = json.loads(gfwtools(tmp_path, "status", "--json").stdout)
    assert "nothing.txt" in document["error"]
    assert "and failed:" in gfwtools(tmp_path, "status").stdout
    assert document["policies"][0]["domains"] == 2


def test_a_damaged_state_is_told_and_is_no_error(tmp_path: Path) -> None:
    tmp_path.joinpath("var/lib/gfwtools").mkdir(parents=True)
    tmp_path.joinpath("var/lib/gfwtools/state.json").write_text("{")
    assert "damaged" in json.loads(gfwtools(tmp_path, "status", "--json").stdout)["problem"]
    assert "damaged" in gfwtools(tmp_path, "status").stdout


def test_a_pipe_gets_no_colour_and_watch_looks_again_until_it_is_interrupted(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "gfwtools", "--root", str(tmp_path), "status", "--watch", "--json"]
    environment = {**os.environ, "FORCE_COLOR": "1"}
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    time.sleep(4.5)
    child.send_signal(2)
    output, _ = child.communicate(timeout=10)
    assert child.returncode == 130
    assert len(output.splitlines()) >= 2
    assert all(set(json.loads(line)) == KEYS for line in output.splitlines())
    assert "\x1b" not in output + gfwtools(tmp_path, "status", FORCE_COLOR="1").stdout

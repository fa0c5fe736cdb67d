"""Debian's nftables.service with our drop-in: its commands, by nft itself in an empty network namespace.

The real unit is restarted in tests/hosts.
"""

import shlex
import subprocess
from pathlib import Path

import pytest

from gfwtools.config.model import Config
from gfwtools.setup.boot import boot_files
from gfwtools.setup.nftables_service import DROP_IN

pytestmark = pytest.mark.e2e

OWNERS = """\
#!/usr/sbin/nft -f
flush ruleset

define LAN = { 10.0.0.0/8, 192.168.0.0/16 }
table inet filter {
    set lan { type ipv4_addr; flags interval; elements = $LAN; }
    chain input {
        type filter hook input priority 0; policy accept;
        ip saddr @lan tcp dport 22 accept comment "100% a\\b"
    }
}
"""
OURS = """
add table inet gfwtools
add set inet gfwtools learned { type ipv4_addr; }
add element inet gfwtools learned { 198.51.100.7 }
"""
#: What other programs have set up since, which `flush ruleset` removes.
OTHERS = "add table ip docker\nadd chain inet filter late\n"


def commands() -> dict[str, str]:
    """The shell's scripts in the drop-in, as systemd hands them over."""
    files = {edit.path: edit.data.decode() for edit in boot_files(Config(), "systemd", "/bin/true", nftables=True)}
    found = {}
    for line in files[DROP_IN].splitlines():
        name, _, value = line.partition("=")
        if name.startswith("Exec") and value:
            script = shlex.split(value)[2]
            found[name] = script.replace("\\\\", "\\").replace("%%", "%").replace("$$", "$")
    return found


def rulesets(folder: Path, *does: str, owners: str = OWNERS, before: str = OURS) -> list[str]:
    """The rule set after ``before`` and after each command of the drop-in, in one namespace."""
    (folder / "nftables.conf").write_text(owners)
    (folder / "before").write_text(before)
    (folder / "others").write_text(OTHERS)
    known = {
        name: text.replace("/etc/nftables.conf", str(folder / "nftables.conf")) for name, text in commands().items()
    }
    known["others"] = f"nft -f {folder / 'others'}"
    lines = [f"nft -f {folder / 'before'}", *(f"sh -c {shlex.quote(known[name])}" for name in does)]
    shown = "".join(f"{line}\necho =====\nnft list ruleset\n" for line in lines)
    done = subprocess.run(["unshare", "-n", "sh", "-c", shown], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.split("=====\n")[1:]


@pytest.mark.parametrize("name", ["ExecStart", "ExecReload"])
def test_a_start_loads_the_owners_file_anew_beside_our_table(name: str, tmp_path: Path) -> None:
    before, first, late, again = rulesets(tmp_path, name, "others", name)
    assert "198.51.100.7" in before
    assert "ip docker" in late
    assert "chain late" in late
    assert first == again
    assert "198.51.100.7" in again
    assert 'comment "100% a\\b"' in again


def test_a_stop_leaves_our_table_alone(tmp_path: Path) -> None:
    before, _, stopped = rulesets(tmp_path, "ExecStart", "ExecStop")
    assert stopped == before


def test_without_our_table_a_start_and_a_stop_are_as_before(tmp_path: Path) -> None:
    before, started, again, stopped = rulesets(tmp_path, "ExecStart", "ExecStart", "ExecStop", before="")
    assert (before, stopped) == ("", "")
    assert started == again
    assert "table inet filter" in started
    assert "gfwtools" not in started


def test_an_owners_file_that_cannot_be_loaded_changes_nothing(tmp_path: Path) -> None:
    before, started = rulesets(tmp_path, "ExecStart", owners=OWNERS + "what\n")
    assert started == before


@pytest.mark.parametrize(
    "owners",
    [
        pytest.param(OWNERS + "table inet gfwtools {\n}\n", id="names-our-table"),
        pytest.param(OWNERS.replace("flush ruleset", "flush ruleset\nflush ruleset"), id="flushes-twice"),
        pytest.param(OWNERS.replace("flush ruleset", "flush ruleset; add table ip nat"), id="flushes-in-other-words"),
    ],
)
def test_a_file_that_does_not_fit_is_loaded_as_without_us(owners: str, tmp_path: Path) -> None:
    _, _, _, started = rulesets(tmp_path, "ExecStart", "others", "ExecStart", owners=owners)
    assert "table inet filter" in started
    assert "198.51.100.7" not in started
    assert "ip docker" not in started


def test_a_file_without_a_flush_adds_to_what_is_there(tmp_path: Path) -> None:
    _, _, late, again = rulesets(
        tmp_path, "ExecStart", "others", "ExecStart", owners=OWNERS.replace("flush ruleset", "")
    )
    assert "ip docker" in late
    assert "ip docker" in again
    assert again.count("tcp dport 22") == 2

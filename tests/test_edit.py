"""``gfwtools deny`` and ``gfwtools allow`` on the files below a root; the reload is tested in tests/e2e/test_deny.py."""

import json
from pathlib import Path
from typing import Any

import pytest
from cli import gfwtools
from paths import FIXTURES
from trees import tree_of

from gfwtools.config.model import Paths

LIST = FIXTURES / "list.txt"
#: A list of the user's that is a URL. Nothing listens there.
FETCHED = "http://127.0.0.1:9/deny"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/gfwtools").mkdir(parents=True)
    at(tmp_path, "allow").write_text("# mine\nfree.google.com  # works\n\nwww.work.example\n")
    gfwtools(tmp_path, "update", "--source", str(LIST))
    return tmp_path


def at(root: Path, side: str) -> Path:
    return root / f"etc/gfwtools/{side}.txt"


def edit(root: Path, *args: str, code: int = 0) -> dict[str, Any]:
    found = json.loads(gfwtools(root, *args, "--json", code=code).stdout)
    assert isinstance(found, dict)
    return found


def verdict(root: Path, name: str) -> str:
    return str(json.loads(gfwtools(root, "check", "domain", "--json", name).stdout)["verdict"])


def test_a_denied_name_is_in_the_list_and_in_what_dnsmasq_reads(root: Path) -> None:
    told = gfwtools(root, "deny", "https://WWW.new.example./page").stdout
    assert f"added www.new.example to {at(root, 'deny')}" in told
    last = "www.new.example: direct (no list names it) -> tunnel (your deny list has www.new.example)"
    assert told.splitlines()[-1] == last
    assert at(root, "deny").read_text() == "www.new.example\n"
    assert "/www.new.example/" in (root / "etc/dnsmasq.d/gfwlist.conf").read_text()


def test_the_second_run_says_already_and_writes_nothing(root: Path) -> None:
    gfwtools(root, "deny", "new.example", "203.0.113.7")
    before = tree_of(root)
    told = gfwtools(root, "deny", "NEW.example", "203.0.113.7/32").stdout
    assert f"new.example is already in {at(root, 'deny')}" in told
    assert f"203.0.113.7 is already in {at(root, 'deny')}" in told
    assert "new.example: tunnel (your deny list has new.example), as before" in told
    after = tree_of(root)
    assert {path: data for path, data in after.items() if not path.endswith("/lock")} == {
        path: data for path, data in before.items() if not path.endswith("/lock")
    }


def test_a_name_twice_on_one_command_line_is_written_once(root: Path) -> None:
    gfwtools(root, "deny", "new.example", "https://new.example/")
    assert at(root, "deny").read_text() == "new.example\n"


@pytest.mark.parametrize(("side", "other"), [("deny", "allow"), ("allow", "deny")])
def test_a_name_on_the_other_list_is_moved_with_its_comment(root: Path, side: str, other: str) -> None:
    at(root, side).unlink(missing_ok=True)
    at(root, other).write_text("# head\nMoved.example  # why\n# tail\n")
    told = gfwtools(root, side, "moved.example").stdout
    assert f"moved moved.example from {at(root, other)} to {at(root, side)}" in told
    assert at(root, other).read_text() == "# head\n# tail\n"
    assert at(root, side).read_text() == "moved.example  # why\n"
    assert verdict(root, "moved.example") == ("tunnel" if side == "deny" else "direct")


def test_a_longer_name_on_the_other_list_stays_and_is_named(root: Path) -> None:
    told = gfwtools(root, "deny", "work.example").stderr
    assert f"www.work.example stays direct: {at(root, 'allow')} line 4 is about the longer name" in told
    assert verdict(root, "work.example") == "tunnel"
    assert verdict(root, "www.work.example") == "direct"


def test_a_removed_name_goes_back_to_what_the_list_says(root: Path) -> None:
    told = gfwtools(root, "allow", "--remove", "https://free.google.com/").stdout
    assert (
        "free.google.com: direct (your allow list has free.google.com) -> tunnel (the list blocks google.com)" in told
    )
    assert at(root, "allow").read_text() == "# mine\n\nwww.work.example\n"
    again = gfwtools(root, "allow", "--remove", "free.google.com").stdout
    assert f"free.google.com is not in {at(root, 'allow')}" in again


def test_the_mode_of_a_list_and_a_link_to_it_stay(root: Path) -> None:
    real = root / "etc/mine.txt"
    real.write_text("# here\n")
    real.chmod(0o640)
    at(root, "deny").symlink_to(real)
    gfwtools(root, "deny", "new.example")
    assert at(root, "deny").is_symlink()
    assert real.read_text() == "# here\nnew.example\n"
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_dry_run_shows_the_verdicts_and_writes_nothing(root: Path) -> None:
    before = tree_of(root)
    found = edit(root, "deny", "--dry-run", "free.google.com")
    (name,) = found["names"]
    assert (name["before"]["verdict"], name["after"]["verdict"]) == ("direct", "tunnel")
    assert found["dry_run"] is True
    assert tree_of(root) == before


def test_one_wrong_name_changes_nothing_for_the_others(root: Path) -> None:
    before = tree_of(root)
    told = gfwtools(root, "deny", "new.example", "bad..name", "a b", code=2).stderr
    assert "'bad..name': an empty label" in told
    assert "'a b'" in told
    assert tree_of(root) == before


def test_a_policy_that_does_not_exist_is_a_usage_error(root: Path) -> None:
    assert (
        "no policy 'work'; the configuration has gfwlist"
        in gfwtools(root, "deny", "--policy", "work", "x.y", code=2).stderr
    )


def test_a_whole_top_level_domain_is_said_to_be_one(root: Path) -> None:
    assert "cn is a whole top-level domain" in gfwtools(root, "deny", "*.cn").stderr
    assert verdict(root, "anything.cn") == "tunnel"


def test_the_object_that_json_prints(root: Path) -> None:
    found = edit(root, "deny", "new.example")
    assert found == {
        "command": "deny",
        "remove": False,
        "policy": "gfwlist",
        "dry_run": False,
        "files": [str(at(root, "deny"))],
        "names": [
            {
                "name": "new.example",
                "changed": True,
                "done": [f"added new.example to {at(root, 'deny')}"],
                "warnings": [],
                "before": {"verdict": "direct", "reason": "none", "matched": None, "policy": "gfwlist"},
                "after": {"verdict": "tunnel", "reason": "deny", "matched": "new.example", "policy": "gfwlist"},
            }
        ],
        "notes": [f"dnsmasq was not reloaded: only files below {root} are changed"],
    }


@pytest.fixture
def config(root: Path) -> Path:
    path = root / "etc/gfwtools/config.toml"
    text = (
        f'[policy.gfwlist]\nsources = ["{LIST}"]\ndeny = [URL"/etc/gfwtools/second.txt"]\n'
        f'[policy.work]\nsources = ["{LIST}"]\nset = "work"\nmark = 7\ntable = 7\ninterface = "wg1"\n'
        "deny = [URL]\nallow = []\n"
    )
    path.write_text(text.replace("URL", ""))
    gfwtools(root, "update")
    path.write_text(text.replace("URL", f'"{FETCHED}", '))
    return path


def test_an_entry_that_is_a_url_is_passed_over(root: Path, config: Path) -> None:
    gfwtools(root, "deny", "new.example")
    assert (root / "etc/gfwtools/second.txt").read_text() == "new.example\n"


def test_a_policy_without_a_file_says_what_to_write(root: Path, config: Path) -> None:
    told = gfwtools(root, "deny", "--policy", "work", "new.example", code=1).stderr
    assert 'policy.work.deny names no file; add one in config.toml: deny = ["/etc/gfwtools/deny.txt"]' in told
    assert "nothing was changed" in told


def test_a_name_that_a_fetched_list_denies_cannot_be_allowed(root: Path, config: Path) -> None:
    Paths(root).own_list(FETCHED).write_text("new.example\n")
    before = tree_of(root)
    told = gfwtools(root, "allow", "new.example", code=1).stderr
    assert f"new.example is in {FETCHED} too, and deny wins; take it out of that list" in told
    assert {p: d for p, d in tree_of(root).items() if not p.endswith("/lock")} == {
        p: d for p, d in before.items() if not p.endswith("/lock")
    }


def test_a_list_that_is_a_folder_fails_and_changes_nothing(root: Path) -> None:
    at(root, "deny").mkdir()
    domains = (root / "var/lib/gfwtools/gfwlist.domains").read_text()
    assert f"{at(root, 'deny')}: not a regular file" in gfwtools(root, "deny", "new.example", code=1).stderr
    assert (root / "var/lib/gfwtools/gfwlist.domains").read_text() == domains

"""As root gfwtools reads nothing that another user can write, and starts no program that another user has put in its way."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import gfwtools
from paths import FIXTURES

from gfwtools.config.load import load
from gfwtools.config.trust import require_trusted
from gfwtools.errors import StoreError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root has files of others")

LIST = str(FIXTURES / "list.txt")
OTHER = 12345
STATE = "var/lib/gfwtools"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/gfwtools/dns").mkdir(parents=True)
    (tmp_path / "etc/gfwtools/config.toml").write_text(f'[policy.gfwlist]\nsources = ["{LIST}"]\n')
    (tmp_path / "etc/gfwtools/dns/gfwlist.conf").write_text("")
    gfwtools(tmp_path, "update")
    (tmp_path / STATE / "journal").mkdir(exist_ok=True)
    (tmp_path / STATE / "journal/log").write_text("")
    return tmp_path


PLACES = (
    "etc",
    "etc/gfwtools",
    "etc/gfwtools/config.toml",
    "etc/gfwtools/dns",
    "etc/gfwtools/dns/gfwlist.conf",
    "etc/dnsmasq.d",
    STATE,
    f"{STATE}/state.json",
    f"{STATE}/gfwlist.ipset",
    f"{STATE}/journal",
    f"{STATE}/journal/log",
)


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("how", ["owner", "group", "others"])
def test_root_refuses_what_another_user_can_write(root: Path, name: str, how: str) -> None:
    place = root / name
    mode = place.stat().st_mode & 0o777
    if how == "owner":
        os.chown(place, OTHER, -1)
        command = "chown root:root"
    else:
        os.chown(place, -1, OTHER)
        place.chmod(mode | (0o020 if how == "group" else 0o002))
        command = "chmod g-w" if how == "group" else "chmod o-w"
    told = gfwtools(root, "update", "--offline", code=1).stderr
    assert told.startswith(f"gfwtools: {place}: ")
    assert told.endswith(f"then run: {command} {place}\n")
    subprocess.run([*command.split(), place], check=True)
    gfwtools(root, "update", "--offline")


def test_a_configuration_in_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    config = tmp_path / "home/config.toml"
    config.write_text("")
    os.chown(tmp_path / "home", OTHER, OTHER)
    with pytest.raises(StoreError, match=f"{tmp_path}/home: belongs to user {OTHER}"):
        load(config)


def test_a_link_of_another_user_to_roots_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    (tmp_path / "config.toml").write_text("")
    link = tmp_path / "shared/config.toml"
    link.symlink_to(tmp_path / "config.toml")
    os.chown(link, OTHER, OTHER, follow_symlinks=False)
    with pytest.raises(StoreError, match=r"shared/config.toml: belongs to user 12345.*chown -h root:root"):
        load(link)


def test_in_a_folder_with_the_sticky_bit_roots_own_file_is_good(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o1777)
    config = tmp_path / "shared/config.toml"
    config.write_text("")
    assert load(config).policies
    assert load(tmp_path / "shared/none.toml").policies


def test_the_group_of_root_may_write(root: Path) -> None:
    for name in PLACES:
        (root / name).chmod((root / name).stat().st_mode & 0o777 | 0o020)
    config = load(root / "etc/gfwtools/config.toml", root)
    require_trusted(config)


def the_owner(root: Path, lists: Path) -> None:
    os.chown(lists, OTHER, OTHER)
    os.chown(lists / "deny.txt", OTHER, OTHER)
    (lists / "deny.txt").chmod(0o664)  # Debian's users have a group of their own


def all_users(root: Path, lists: Path) -> None:
    (lists / "deny.txt").chmod(0o666)


def another_group(root: Path, lists: Path) -> None:
    os.chown(lists, OTHER, 99)
    lists.chmod(0o775)


@pytest.mark.parametrize(("who", "is_good"), [(the_owner, True), (all_users, False), (another_group, False)])
def test_a_list_may_be_its_owners_and_no_other_users(
    root: Path, who: Callable[[Path, Path], None], is_good: bool
) -> None:
    lists = root / "home/lists"
    lists.mkdir(parents=True)
    (lists / "deny.txt").write_text("mine.example\n")
    text = (root / "etc/gfwtools/config.toml").read_text()
    (root / "etc/gfwtools/config.toml").write_text(f'{text}deny = ["/home/lists/deny.txt"]\n')
    who(root, lists)
    told = gfwtools(root, "update", code=0 if is_good else 1).stderr
    assert ("can write it" in told) != is_good


def test_another_user_works_with_files_of_his_own() -> None:
    """Who is not root has nothing to lose by them."""
    program = (
        "import os, sys, tomllib; from pathlib import Path; from gfwtools.config.load import load\n"
        "from gfwtools.config.trust import require_trusted\n"
        f"os.setgroups([]); os.setgid({OTHER}); os.setuid({OTHER})\n"
        "require_trusted(load(Path(sys.argv[1])))\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        config = Path(folder, "config.toml")
        config.write_text("")
        config.chmod(0o666)
        subprocess.run([sys.executable, "-c", program, config], check=True)


# ---------------------------------------------------------------- programs


def fake(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).write_text(f"#!/bin/sh\ntouch {folder}/ran-{name}\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_program_in_the_callers_path_is_not_run_by_root(tmp_path: Path) -> None:
    folder = fake(tmp_path / "bin", "ip", "nft", "ipset", "iptables", "dnsmasq", "wg", "sysctl", "ss", "systemctl")
    gfwtools(tmp_path, "status", PATH=f"{folder}:{os.environ['PATH']}")
    gfwtools(tmp_path, "check", "host", PATH=f"{folder}:{os.environ['PATH']}", code=None)
    gfwtools(tmp_path, "bootstrap", "--dry-run", PATH=f"{folder}:{os.environ['PATH']}", code=None)
    assert [path.name for path in folder.glob("ran-*")] == []


def test_without_any_search_path_root_finds_its_programs(tmp_path: Path) -> None:
    program = "from gfwtools.system.commands import System; print(System().read('ip', '-V'))"
    done = subprocess.run([sys.executable, "-c", program], env={}, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("ip utility")


def test_no_variable_of_the_caller_reaches_a_program_of_root(monkeypatch: pytest.MonkeyPatch) -> None:
    from gfwtools.system.commands import System

    for name in ("PYTHONPATH", "PERL5LIB", "BASH_ENV", "IFS", "LD_LIBRARY_PATH"):
        monkeypatch.setenv(name, "/tmp")
    monkeypatch.setenv("TERM", "xterm")
    found = dict(line.split("=", 1) for line in System().read("env").splitlines())
    assert {"LC_ALL", "PATH", "TERM"} <= found.keys() <= {"LC_ALL", "PATH", "TERM", "HOME"}


def test_an_installed_command_runs_no_file_of_a_variable(tmp_path: Path) -> None:
    """What scripts/install does to the first line, with the command of this environment."""
    (tmp_path / "sitecustomize.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    command = Path(sys.executable).with_name("gfwtools")
    head, _, rest = command.read_text().partition("\n")
    installed = tmp_path / "gfwtools"
    installed.write_text(f"{head} -I\n{rest}")
    installed.chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([installed, "--version"], env=environment, check=True, capture_output=True)
    assert not (tmp_path / "ran").exists()
    subprocess.run([command, "--version"], env=environment, check=True, capture_output=True)
    assert (tmp_path / "ran").exists(), "the test proves nothing"


def test_what_bootstrap_has_started_at_boot_is_isolated() -> None:
    from gfwtools.setup.plan import program

    python, option, called = program().split()
    assert Path(python).name.startswith("python")
    assert (option, Path(called).name) == ("-I", "gfwtools")
    subprocess.run([python, option, called, "--version"], check=True, capture_output=True)

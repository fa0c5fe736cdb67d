"""What docs/security.md promises of the code as a whole: no shell, nothing evaluated, no names that others can foresee."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli import gfwlist2dnsmasq
from journals import put
from paths import REPO
from sources import nodes

from gfwtools.config.load import loads
from gfwtools.config.model import Paths
from gfwtools.errors import StoreError
from gfwtools.setup import files
from gfwtools.setup.boot import boot_files
from gfwtools.storage import atomic
from gfwtools.storage.journal import Journal

#: The modules that start programs, each as a list of words.
STARTERS = {"gfwtools/system/commands.py", "gfwtools/diagnose/trace.py", "gfwtools/diagnose/trace_guard.py"}
SHELLS = {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell", "subprocess_shell"}
EVALUATE = {"eval", "exec", "compile", "__import__"}
FOREIGN = {"pickle", "marshal", "shelve", "yaml", "ctypes", "pty", "code"}


def called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def test_no_command_goes_through_a_shell() -> None:
    for name, node in nodes():
        if isinstance(node, ast.Call):
            assert called(node) not in SHELLS, f"{name}:{node.lineno}"
            assert "shell" not in {keyword.arg for keyword in node.keywords}, f"{name}:{node.lineno}"
        if isinstance(node, ast.List | ast.Tuple) and "-c" in [getattr(word, "value", "") for word in node.elts]:
            raise AssertionError(f"{name}:{node.lineno}")


def test_programs_are_started_in_few_places_only() -> None:
    starters = {
        name
        for name, node in nodes()
        if (isinstance(node, ast.Attribute) and re.match(r"exec[lv]|spawn|posix_spawn|fork", node.attr))
        or (
            isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "subprocess"
            and node.attr in ("run", "Popen")
        )
        or (isinstance(node, ast.ImportFrom) and node.module == "subprocess")
    }
    assert starters == STARTERS


def test_nothing_that_was_read_is_ever_evaluated() -> None:
    for name, node in nodes():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in EVALUATE, f"{name}:{node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            assert not {module.partition(".")[0] for module in modules} & FOREIGN, f"{name}:{node.lineno}"


def test_no_name_in_a_shared_folder_can_be_foreseen() -> None:
    for name, node in nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:  # a docstring
            assert not re.search(r"(?<![\w.])/(?:var/)?tmp\b|/dev/shm\b", node.value), f"{name}:{node.lineno}"
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tempfile":
            assert node.attr in ("TemporaryDirectory", "TemporaryFile"), f"{name}:{node.lineno}"


@pytest.mark.parametrize("init", ["systemd", "openrc", "none"])
def test_no_value_of_the_configuration_reaches_a_script(init: str) -> None:
    """The scripts, the crontab and the unit's line for sh hold the program's path, and that is of harmless letters."""
    hostile = (
        '[dns]\nlayout = "split"\nconf_dir = "/opt/$(id);`id`"\nmanager = "command"\nrestart = ["$(id)"]\n'
        '[policy.gfwlist]\nsources = ["/$(id)"]\nallow = ["/`id`"]\n'
    )
    for edit in boot_files(loads(hostile), init, "/usr/local/bin/gfwtools"):  # type: ignore[arg-type]
        for line in edit.data.decode().splitlines():
            assert "id)" not in line.replace("grep -id)", "") or line.startswith("ReadWritePaths="), line


def test_what_may_not_be_read_by_others_may_not_be_read_in_the_journal(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    secret = paths.at("/etc/dnsmasq.conf")
    secret.parent.mkdir()
    secret.write_text("secret\n")
    secret.chmod(0o600)
    put([files.FileEdit("/etc/dnsmasq.conf", b"secret, and more\n", "")], paths)
    assert secret.stat().st_mode & 0o777 == 0o600
    copies = [path for path in (paths.state_dir / "journal").iterdir() if path.name != "log"]
    assert [(copy.read_text(), copy.stat().st_mode & 0o777) for copy in copies] == [("secret\n", 0o600)]
    assert "secret" not in (paths.state_dir / "journal/log").read_text()
    assert files.put_back(paths) == {}
    assert (secret.read_text(), secret.stat().st_mode & 0o777) == ("secret\n", 0o600)


def test_a_file_is_never_open_to_more_than_it_was_not_even_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    replace = Path.replace

    def watch(path: Path, target: Path) -> Path:
        modes.append(path.stat().st_mode & 0o777)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watch)
    atomic.write_all({tmp_path / "one": b"1"}, 0o600)
    assert modes == [0o600]


def test_a_configuration_that_only_some_may_read_stays_so(tmp_path: Path) -> None:
    """A proxy's password may be in it."""
    config, other = tmp_path / "config.toml", tmp_path / "other"
    config.write_text("[fetch]\n")
    config.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(config, 1000, 1000)
    before = config.stat()
    assert atomic.write_all({config: b"[fetch]\n"}, None) == []
    with pytest.raises(KeyboardInterrupt), Journal(Paths(tmp_path)).transaction("test", {}) as transaction:
        assert transaction.write({config: b"[dns]\n", other: b""}, mode=None) == [config, other]
        during = config.stat()
        raise KeyboardInterrupt
    assert (during.st_mode, during.st_uid, during.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    after = config.stat()
    assert config.read_text() == "[fetch]\n"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert not other.exists()


def test_bootstrap_writes_the_configuration_that_way() -> None:
    source = (REPO / "gfwtools/setup/bootstrap.py").read_text("utf-8")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call) and called(node) == "write"]
    assert [ast.unparse(call) for call in calls] == ["transaction.write(wanted, mode=None)"]


def test_an_output_goes_through_a_link_and_to_a_device(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    atomic.write_output(tmp_path / "link", b"1")  # it leads nowhere yet
    (tmp_path / "target").write_text("old")
    (tmp_path / "other").symlink_to("target")
    atomic.write_output(tmp_path / "other", b"2")
    assert (tmp_path / "other").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"2"
    atomic.write_output(Path("/dev/null"), b"3")
    with pytest.raises(StoreError, match="is a folder; give a file"):
        atomic.write_output(tmp_path, b"4")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a link of somebody else")
def test_a_link_of_somebody_else_in_a_shared_folder_is_not_followed(tmp_path: Path) -> None:
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    (tmp_path / "precious").write_text("precious")
    (shared / "out").symlink_to(tmp_path / "precious")
    os.chown(shared / "out", 1000, 1000, follow_symlinks=False)
    with pytest.raises(StoreError, match="a link of user 1000 in a folder of all users"):
        atomic.write_output(shared / "out", b"1")
    assert (tmp_path / "precious").read_text() == "precious"


def test_certificates_go_unchecked_for_one_flag_only_and_that_is_told(tmp_path: Path) -> None:
    unchecked = {
        name
        for name, node in nodes()
        if isinstance(node, ast.keyword)
        and node.arg == "verify"
        and not (isinstance(node.value, ast.Constant) and node.value.value is True)
    }
    assert unchecked <= {"gfwtools/cli/gfwlist2dnsmasq.py", "gfwtools/fetch/mirror.py", "gfwtools/fetch/tls.py"}
    (tmp_path / "list.txt").write_text("||google.com\n")
    (tmp_path / "config.toml").write_text(f'[policy.gfwlist]\nsources = ["{tmp_path}/list.txt"]\n')
    result = gfwlist2dnsmasq("-i", "-l", "-o", str(tmp_path / "out"), GFWTOOLS_CONFIG=str(tmp_path / "config.toml"))
    assert "no certificate is checked" in result.stderr


def test_a_program_below_a_folder_of_somebody_else_is_not_imported(tmp_path: Path) -> None:
    """The installed command has no current folder in its path."""
    (tmp_path / "click.py").write_text("raise SystemExit('imported from the current folder')\n")
    command = Path(sys.executable).with_name("gfwtools")
    result = subprocess.run([command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "imported" not in result.stderr
    assert result.returncode == 0

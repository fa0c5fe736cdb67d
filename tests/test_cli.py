"""The command line as a whole: help, completion, what gets imported."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cli import gfwtools
from paths import FIXTURES, REPO


def imported(*args: str) -> set[str]:
    program = (
        "import sys; sys.argv = ['gfwtools', *sys.argv[1:]]\n"
        "from gfwtools.cli import main\n"
        "try: main()\n"
        "except SystemExit: print('MODULES', *sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    output = subprocess.run([sys.executable, "-c", program, *args], capture_output=True, text=True, check=True).stdout
    return set(output.splitlines()[-1].split()[1:])


HEAVY = {"httpx", "tldextract", "requests", "asyncio", "anyio", "dns"}


def test_help_imports_nothing_heavy() -> None:
    assert not imported("--help") & (HEAVY | {"tomllib"})


def test_a_check_and_an_update_from_a_file_import_nothing_heavy(tmp_path: Path) -> None:
    assert not imported("--root", str(tmp_path), "update", "--source", str(FIXTURES / "list.txt")) & HEAVY
    assert not imported("--root", str(tmp_path), "check", "domain", "google.com") & HEAVY


@pytest.mark.parametrize("name", ["a b", "", "wg/0", "a234567890123456", "..", "wg0\n"])
def test_an_option_that_names_no_interface_is_wrong_usage(tmp_path: Path, name: str) -> None:
    told = gfwtools(tmp_path, "bootstrap", "--interface", name, code=2).stderr
    assert "'--interface'" in told
    assert "is not a name for an interface" in told
    assert "config.toml" not in told


def test_every_command_has_a_help_with_examples(tmp_path: Path) -> None:
    from gfwtools.cli import COMMANDS

    for words in ([], *([name] for name in COMMANDS), *(["check", name] for name in ("domain", "ip", "host"))):
        output = gfwtools(tmp_path, *words, "--help").stdout
        assert "Usage:" in output
        assert "Examples:" in output, words
        assert [line for line in output.splitlines() if len(line) > 80] == [], words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_of_a_shell(tmp_path: Path, shell: str) -> None:
    assert "_GFWTOOLS_COMPLETE" in gfwtools(tmp_path, "completion", shell).stdout


def test_an_unknown_command_is_a_usage_error(tmp_path: Path) -> None:
    assert "no command 'upgrade'; did you mean update?" in gfwtools(tmp_path, "upgrade", code=2).stderr


def test_an_unknown_command_like_none_of_ours_shows_all_of_them(tmp_path: Path) -> None:
    assert "no command 'zzz'; use update, check, deny" in gfwtools(tmp_path, "zzz", code=2).stderr


def test_an_unknown_check_is_met_with_the_checks(tmp_path: Path) -> None:
    assert "no command 'domian'; did you mean domain?" in gfwtools(tmp_path, "check", "domian", code=2).stderr


@pytest.mark.parametrize("option", ["--root", "--config"])
def test_an_option_of_every_command_behind_the_command_is_shown_its_place(tmp_path: Path, option: str) -> None:
    told = gfwtools(tmp_path, "update", option, str(tmp_path), code=2).stderr
    assert f"{option} goes before the command: gfwtools {option} PATH COMMAND" in told


def test_a_reader_that_goes_away_is_no_crash(tmp_path: Path) -> None:
    command = (
        f"{sys.executable} -m gfwtools --root {tmp_path} export domains 2>&1 >/dev/full | cat; exit ${{PIPESTATUS[0]}}"
    )
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stdout
    assert result.returncode == 1


def test_a_profiler_still_has_its_say_at_the_end() -> None:
    command = [sys.executable, "-m", "cProfile", "-m", "gfwtools", "--version"]
    assert "function calls" in subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_root_and_the_configuration_come_from_the_environment_too(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "gfwtools", "update", "--source", str(FIXTURES / "list.txt")]
    import os

    subprocess.run(program, env={**os.environ, "GFWTOOLS_ROOT": str(tmp_path)}, check=True, capture_output=True)
    assert (tmp_path / "etc/dnsmasq.d/gfwlist.conf").exists()


# Sends this process the signal when the module is imported, by the interpreter's own report; no clock is involved.
INTERRUPTED = """
import os, sys
from gfwtools.__main__ import main as entry
number, name = int(sys.argv[1]), sys.argv[2]
sys.addaudithook(lambda event, args: os.kill(os.getpid(), number) if (event, args[0]) == ("import", name) else None)
sys.argv = ["gfwtools", *sys.argv[3:]]
entry()
"""


@pytest.mark.parametrize(
    "name", ["gfwtools.cli", "click", "click.core", "gfwtools.errors", "gfwtools.config", "ipaddress"]
)
@pytest.mark.parametrize(("number", "codes"), [(signal.SIGINT, {130}), (signal.SIGTERM, {130, -signal.SIGTERM})])
def test_interrupted_while_it_is_being_loaded_it_ends_quietly(
    tmp_path: Path, name: str, number: signal.Signals, codes: set[int]
) -> None:
    program = INTERRUPTED
    result = subprocess.run(
        [sys.executable, "-c", program, str(int(number)), name, "--root", str(tmp_path), "update", "--offline"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode in codes
    assert result.stderr.strip() in ("", "gfwtools: interrupted")
    assert not result.stdout
    assert not list(tmp_path.iterdir())


# Three more signals each time that something is printed.
SIGNALS_AT_THE_END = """
import os
import click, gfwtools.cli
def amid_signals(*args, echo=click.echo, **options):
    for number in (2, 1, 15):
        os.kill(os.getpid(), number)
    echo(*args, **options)
    for number in (15, 2, 1):
        os.kill(os.getpid(), number)
click.echo = amid_signals
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_once_the_end_has_begun_further_signals_change_neither_its_word_nor_its_code(
    tmp_path: Path, number: signal.Signals
) -> None:
    program = f"{SIGNALS_AT_THE_END}{INTERRUPTED}"
    result = subprocess.run(
        [sys.executable, "-c", program, str(int(number)), "tomllib", "--root", str(tmp_path), "update", "--offline"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr.strip()) == (130, "gfwtools: interrupted")


def test_a_signal_while_a_failure_is_told_ends_it_quietly(tmp_path: Path) -> None:
    program = f"{SIGNALS_AT_THE_END}{INTERRUPTED}"
    result = subprocess.run(
        [sys.executable, "-c", program, "0", "none", "--root", str(tmp_path), "update", "--source", "/no/such/file"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (130, "")


def test_both_commands_begin_where_that_is_seen_to() -> None:
    scripts = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["scripts"]
    assert {place.partition(":")[0] for place in scripts.values()} == {"gfwtools.__main__"}


def test_what_is_ignored_stays_ignored(tmp_path: Path) -> None:
    """As nohup(1) and a shell's background jobs have it."""
    program = INTERRUPTED.replace(
        "import os, sys", "import os, signal, sys\nfor number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)"
    )
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        subprocess.run(
            [
                sys.executable,
                "-c",
                program,
                str(int(number)),
                "tomllib",
                "--root",
                str(tmp_path),
                "update",
                "--offline",
            ],
            capture_output=True,
            check=True,
        )


def test_export_makes_no_folder(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert "make the folder first" in gfwtools(tmp_path, "export", "domains", "-o", str(missing / "x"), code=1).stderr
    assert not missing.exists()


# ---------------------------------------------------------------- standard streams


def _in_shell(root: Path, line: str, **env: str) -> subprocess.CompletedProcess[str]:
    """``line`` in a shell, in which ``$G`` is the command."""
    command = line.replace("$G", f"{sys.executable} -m gfwtools --root {root}")
    return subprocess.run(
        ["sh", "-c", command],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120, check=False,
        env={**os.environ, **env},
    )  # fmt: skip


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_an_update_whose_standard_streams_are_closed_is_done(tmp_path: Path, closed: str) -> None:
    done = _in_shell(tmp_path, f"$G update --source {FIXTURES / 'list.txt'} {closed}")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert (tmp_path / "etc/dnsmasq.d/gfwlist.conf").read_bytes()


@pytest.mark.parametrize("command", ["status >&-", "status --json >&-", "check domain - <&-", "update 2>&- --nonsense"])
def test_no_command_minds_a_closed_standard_stream(tmp_path: Path, command: str) -> None:
    done = _in_shell(tmp_path, f"$G {command}")
    assert "Traceback" not in done.stderr
    assert done.returncode == (2 if "nonsense" in command else 0), done.stderr


def test_no_file_of_ours_gets_the_descriptor_of_a_closed_standard_stream(tmp_path: Path) -> None:
    program = """
import os
import gfwtools.cli, gfwtools.__main__
gfwtools.cli.main = lambda: print(os.open("/", os.O_RDONLY))
gfwtools.__main__.main()
"""
    done = _in_shell(tmp_path, f"{sys.executable} -c '{program}' <&- 2>&-")
    assert int(done.stdout) > 2


@pytest.mark.parametrize("encoding", ["latin-1", "ascii:strict", "utf-8:strict"])
def test_a_character_that_standard_output_lacks_stops_no_command(tmp_path: Path, encoding: str) -> None:
    root = tmp_path / os.fsdecode(b"\xff\xe4\xbe\x8b")
    source = tmp_path / "list.txt"
    source.write_text("[AutoProxy 0.2.9]\n! Last Modified: \u4f8b\n||google.com\n||\u4f8b\u5b50/\u4f8b\n")
    for words in (["-v", "update", "--source", str(source)], ["status"], ["check", "domain", "google.com"]):
        done = _in_shell(root, f"$G {' '.join(words)}", PYTHONIOENCODING=encoding)
        assert "Traceback" not in done.stderr
        assert done.returncode == 0, done.stderr


def test_bytes_of_no_encoding_on_standard_input_are_no_name(tmp_path: Path) -> None:
    done = _in_shell(
        tmp_path, r"printf '\377.example\ngoogle.com\n' | $G check domain -", PYTHONIOENCODING="utf-8:strict"
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == 2
    assert "google.com: tunnel" in done.stdout


def test_json_is_ascii_so_that_no_text_of_a_list_steers_a_terminal(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    source.write_text("[AutoProxy 0.2.9]\n||google.com\n||x\x9b31m.com/\u4f8b\n")
    printed = gfwtools(tmp_path, "update", "--source", str(source), "--json").stdout
    assert printed.isascii()
    assert json.loads(printed)["policies"][0]["rules"][1]["text"] == "||x\x9b31m.com/\u4f8b"


@pytest.mark.parametrize(
    "command",
    [
        "-m gfwtools update --source list.txt",
        "-c 'from gfwtools.__main__ import gfwlist2dnsmasq as run; run()' -o rules.conf",
    ],
)
def test_a_current_folder_that_was_removed_is_named(tmp_path: Path, command: str) -> None:
    here = tmp_path / "here"
    here.mkdir()
    line = f"cd {here} && rmdir {here} && GFWTOOLS_ROOT={tmp_path} {sys.executable} {command}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.partition(": ")[2] == "the current folder does not exist any more; change to another one\n"


# As `ulimit -v` has it, so many bytes above what the interpreter takes once it has begun.
LITTLE_MEMORY = """
import re, resource, sys
from pathlib import Path
from gfwtools.__main__ import main as entry
room = int(sys.argv[1])
limit = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024 + room
sys.argv = ["gfwtools", *sys.argv[2:]]
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
entry()
"""


@pytest.mark.parametrize("megabytes", [0, 1, 2, 4, 6, 8, 10, 12, 16, 24, 32])
def test_with_too_little_memory_an_update_fails_in_one_line_and_changes_nothing(tmp_path: Path, megabytes: int) -> None:
    source = tmp_path / "list.txt"
    source.write_text("".join(f"||a{number}.example{number % 977}.com\n" for number in range(400_000)))
    root = tmp_path / "root"
    result = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, str(megabytes << 20), "--root", str(root), "update", "--source", source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert re.match("gfwtools: .*(not enough memory|is there enough memory)", result.stderr)
    assert not [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]


WITHOUT_OPENSSL = """
import sys
from importlib.abc import MetaPathFinder
from gfwtools.__main__ import main as entry
class NoMemory(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("_hashlib", "_md5", "_sha1", "_sha256", "_sha512", "_sha3", "_blake2"):
            raise ImportError(f"{name}.so: failed to map segment from shared object")
for name in [name for name in sys.modules if "hash" in name]:
    del sys.modules[name]
sys.meta_path.insert(0, NoMemory())
sys.argv = ["gfwtools", *sys.argv[1:]]
entry()
"""


def test_an_openssl_that_finds_no_memory_is_reported_in_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-c", WITHOUT_OPENSSL, "--root", str(tmp_path), "update", "--offline"]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "is there enough memory?" in result.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("MemoryError()", "gfwtools: not enough memory; nothing was changed\n"),
        ("OSError(12, 'Cannot allocate memory')", "gfwtools: not enough memory; nothing was changed\n"),
        ("SystemError('error return without exception set')", "gfwtools: not enough memory; nothing was changed\n"),
        (
            "SystemError('f returned NULL without setting an exception')",
            "gfwtools: not enough memory; nothing was changed\n",
        ),
        (
            'RuntimeError("can\'t start new thread")',
            "gfwtools: not enough memory, or too many processes, for a thread; nothing was changed\n",
        ),
        (
            "ImportError('/x.so: failed to map segment from shared object')",
            "gfwtools: /x.so: failed to map segment from shared object; is there enough memory? Nothing was changed\n",
        ),
    ],
)
def test_memory_that_runs_out_anywhere_is_told_in_one_line(error: str, said: str) -> None:
    program = f"""
import gfwtools.cli, gfwtools.__main__
def fail():
    raise {error}
gfwtools.cli.main = fail
gfwtools.__main__.main()
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (1, said)

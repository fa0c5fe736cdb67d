"""``gfwtools update`` as a whole process, against every fault that can be staged: mirrors, disks, signals, damaged files.

After each of them: every file is whole, ``check domain`` answers, and the next good run repairs. docs/reliability.md is
the table for users.
"""

import base64
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import faults
import killing
import pytest
from cli import gfwtools
from faults import Authority, Behaviour, Server
from tools import needs

from gfwtools.config.load import load
from gfwtools.config.model import Paths
from gfwtools.errors import GfwtoolsError
from gfwtools.storage.journal import Journal
from gfwtools.storage.state import read_state
from gfwtools.update.update import update

VAR = "var/lib/gfwtools"
CONF = "etc/dnsmasq.d/gfwlist.conf"
NAMES = ("gfwlist.list", "gfwlist.direct", "gfwlist.domains", "gfwlist.ipset", "state.json")
FILES = (CONF, *(f"{VAR}/{name}" for name in NAMES))
#: What a run that was killed has left for the next one to take back.
JOURNAL = f"{VAR}/journal/"


def published(*names: str) -> bytes:
    """A list as its mirrors have it: base64, with a checksum."""
    rules = "".join(f"||{name}\n" for name in ("google.com", *names, *(f"blocked{n}.example" for n in range(200))))
    rules += "|http://85.17.73.31/\n@@||direct.google.com\n"
    digest = hashlib.md5(f"[AutoProxy 0.2.9]\n{rules}".encode()).digest()
    checksum = base64.b64encode(digest).decode().rstrip("=")
    return base64.encodebytes(f"[AutoProxy 0.2.9]\n! Checksum: {checksum}\n{rules}".encode())


OLD, NEW = published("old.example"), published("new.example")


def contents(root: Path) -> dict[str, bytes]:
    """Every file that is there, staged leftovers too; not the lock."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and path.name not in ("lock", "config.toml", "list.txt", "allow.txt", "deny.txt")
    }


def without_times(data: bytes) -> bytes:
    return re.sub(rb'"(?:updated|date|source|reference)": "[^"]*"', b'"": ""', data)


def configure(root: Path, *sources: str, more: str = "") -> None:
    """Short limits: a hanging mirror is given up after a second."""
    path = root / "etc/gfwtools/config.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = ", ".join(f'"{source}"' for source in sources)
    path.write_text(
        "[fetch]\ntimeout = 1\nconnect_timeout = 0.5\nhedge = 0.2\nmax_bytes = 1000000\n"
        f"[policy.gfwlist]\nsources = [{names}]\n{more}"
    )


def update_from(root: Path, data: bytes) -> None:
    """An update in this process, from a file."""
    (root / "list.txt").write_bytes(data)
    update(load(root / "etc/gfwtools/config.toml", root), sources=[str(root / "list.txt")])


def assert_answers(root: Path, *, code: int | None = 0) -> None:
    result = gfwtools(root, "check", "domain", "www.google.com", code=code)
    assert result.stdout.startswith("www.google.com: tunnel\n"), result.stdout + result.stderr


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host that has the old list."""
    configure(tmp_path, "/nowhere")
    update_from(tmp_path, OLD)
    return tmp_path


# ---------------------------------------------------------------- mirrors

BOMB = 200 * 1024 * 1024
MIRRORS: dict[str, tuple[Behaviour, str]] = {
    "hangs before the headers": (faults.hang_before_headers(), "no answer within 1 s"),
    "hangs within the headers": (faults.hang_within_headers(), "no answer within 1 s"),
    "hangs after the headers": (faults.hang_after_headers(), "not complete within 1 s"),
    "sends one byte a second": (faults.drip(NEW), "not complete within 1 s"),
    "sends one byte of the headers at a time": (faults.drip_headers(0.1), "no answer within 1 s"),
    "says 100 Continue for ever": (faults.continue_for_ever(), "."),
    "closes in mid-body": (faults.close_in_body(NEW, 1000), "."),
    "closes without a word": (faults.raw(b""), "."),
    "promises too little": (lambda exchange: exchange.respond(NEW, length=len(NEW) - 400), "checksum|cut short"),
    "promises too much": (lambda exchange: exchange.respond(NEW, length=len(NEW) + 1), "."),
    "promises more than the limit": (lambda exchange: exchange.respond(b"", length=10**12), "max_bytes"),
    "sends without end": (faults.endless(), "max_bytes"),
    "sends a gzip bomb": (faults.bomb(BOMB), "max_bytes"),
    "sends gzip that is cut": (faults.zipped(NEW, cut=20), "."),
    "speaks no HTTP": (faults.raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "."),
    "redirects in a loop": (faults.redirect("/list"), "redirect"),
    "redirects without end": (faults.redirect_chain(99, faults.good(NEW)), "redirect"),
    "redirects to a file": (faults.redirect("file:///etc/passwd"), "."),
    "gives a web page": (faults.html(), "web page"),
    "gives 304 unasked": (faults.status("304 Not Modified", b""), "304"),
    "gives 503": (faults.status("503 Service Unavailable"), "503"),
    "gives 404": (faults.status("404 Not Found"), "404"),
    "gives nothing": (faults.status("200 OK", b""), "empty"),
    "gives a list that was tampered with": (faults.status("200 OK", NEW[:400] + b"AAAA" + NEW[404:]), "checksum|base64"),
    "gives a list that shrank": (faults.status("200 OK", b"[AutoProxy 0.2.9]\n||google.com\n"), "min_share"),
    "gives noise": (faults.status("200 OK", bytes(range(256)) * 40), "no list"),
}  # fmt: skip


@pytest.mark.parametrize("name", MIRRORS)
def test_a_mirror_that_misbehaves_changes_nothing_and_the_next_good_run_repairs(root: Path, name: str) -> None:
    behaviour, message = MIRRORS[name]
    before = contents(root)
    with Server(behaviour) as server:
        configure(root, server.url)
        result = gfwtools(root, "update", code=1)
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"gfwtools: no source gave a list: {server.url}: ")
    assert re.search(message, result.stderr), result.stderr
    assert contents(root) == before
    with Server(faults.good(NEW)) as server:
        configure(root, server.url)
        update(load(root / "etc/gfwtools/config.toml", root))
    assert "new.example" in (root / VAR / "gfwlist.domains").read_text()


@pytest.mark.parametrize(
    "name", ["hangs before the headers", "sends one byte a second", "gives a web page", "gives 503"]
)
def test_a_good_mirror_after_one_that_misbehaves_gives_the_list(root: Path, name: str) -> None:
    with Server(MIRRORS[name][0]) as bad, Server(faults.good(NEW)) as good:
        configure(root, bad.url, good.url)
        gfwtools(root, "update")
    assert "new.example" in (root / VAR / "gfwlist.domains").read_text()
    assert_answers(root)


def test_a_mirror_that_recovers_is_asked_again_by_the_next_run(root: Path) -> None:
    with Server(faults.sequence(faults.status("500 Internal Server Error"), faults.good(NEW))) as server:
        configure(root, server.url)
        gfwtools(root, "update", code=1)
        gfwtools(root, "update")
    assert "new.example" in (root / VAR / "gfwlist.domains").read_text()


CERTIFICATES: dict[str, Callable[[Authority], object]] = {
    "has expired": Authority.expired,
    "is for another name": Authority.of_another_name,
    "is by an unknown authority": lambda authority: authority.unknown(),
    "is self-signed": lambda authority: authority.self_signed(),
}


@pytest.mark.parametrize("name", CERTIFICATES)
def test_a_mirror_whose_certificate_is_wrong_is_not_believed(root: Path, name: str, tmp_path: Path) -> None:
    authority = Authority()
    trusted = str(authority.write(tmp_path.with_name(f"{tmp_path.name}.pem")))
    before = contents(root)
    with Server(faults.good(NEW), CERTIFICATES[name](authority)) as server:  # type: ignore[arg-type]
        configure(root, server.url)
        result = gfwtools(root, "update", code=1, SSL_CERT_FILE=trusted)
    assert "certificate" in result.stderr.lower()
    assert not server.requests
    assert contents(root) == before
    with Server(faults.good(NEW), authority.good()) as server:
        configure(root, server.url)
        gfwtools(root, "update", SSL_CERT_FILE=trusted)


def test_a_redirect_from_https_to_http_is_not_followed(root: Path) -> None:
    authority = Authority()
    trusted = str(authority.write(root.with_name(f"{root.name}.pem")))
    with Server(faults.good(NEW)) as plain, Server(faults.redirect(plain.url), authority.good()) as server:
        configure(root, server.url)
        before = contents(root)
        gfwtools(root, "update", code=1, SSL_CERT_FILE=trusted)
        assert not plain.requests
    assert contents(root) == before


def test_on_a_fresh_host_every_misbehaving_mirror_ends_in_the_starter_list(tmp_path: Path) -> None:
    with Server(faults.html()) as page, Server(faults.hang_after_headers()) as hanging, faults.refused() as refused:
        configure(tmp_path, page.url, hanging.url, refused)
        assert "starter list" in gfwtools(tmp_path, "update").stderr
    assert_answers(tmp_path)
    update_from(tmp_path, NEW)
    assert "new.example" in (tmp_path / VAR / "gfwlist.domains").read_text()


# ---------------------------------------------------------------- system calls that fail, processes that are killed


class Step(NamedTuple):
    """A system call of the main thread that makes a file or changes one."""

    call: str
    number: int
    """The how many-th call of its kind it is."""
    path: str


TRACED = ("openat", "write", "pwrite64", "fsync", "fchmod", "rename", "unlink", "mkdir", "chmod", "flock")


def traced(root: Path, *options: str) -> tuple[int, str, str]:
    """``gfwtools -q update`` under strace: exit code, standard error, trace."""
    trace = root.with_name(f"{root.name}.trace")
    fast = [] if "signal=" in "".join(options) else ["--seccomp-bpf"]  # strace 6.1 sends no signals with it
    strace = [needs("strace"), "-f", *fast, "-qq", "-y", "-o", str(trace), "-e", f"trace={','.join(TRACED)}", *options]
    command = [
        sys.executable,
        "-m",
        "gfwtools",
        "--root",
        str(root),
        "-q",
        "update",
        "--source",
        str(root / "list.txt"),
    ]
    done = subprocess.run(
        [*strace, *command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"},
    )
    return done.returncode, done.stderr, trace.read_text("utf-8", "replace")


def steps(root: Path, trace: str) -> list[Step]:
    """Every step of a traced run that touches what is below ``root`` for writing, in order."""
    main = trace.split(maxsplit=1)[0]
    counts = dict.fromkeys(TRACED, 0)
    found = []
    for line in trace.split("\n"):
        match = re.match(rf"{main} +(\w+)\((.*)", line)  # strace fills short numbers up with blanks
        if not match or match[1] not in counts:
            continue
        call, arguments = match.groups()
        counts[call] += 1
        path = re.search(rf"{re.escape(str(root))}[^\">]*", arguments)
        if path and (call != "openat" or "O_CREAT" in arguments):
            found.append(Step(call, counts[call], path[0]))
    return found


@contextmanager
def a_host_between_two_lists(root: Path) -> Iterator[tuple[list[Step], Callable[[], None], dict[str, bytes]]]:
    """The steps from the old list to the new one, how to go back to before them, and what is there after them."""
    update_from(root, OLD)
    before = contents(root)
    (root / "list.txt").write_bytes(NEW)
    code, errors, trace = traced(root)
    assert (code, errors) == (0, "")
    after = contents(root)

    def back() -> None:
        for name in contents(root).keys() - before.keys():
            (root / name).unlink()
        for name, data in before.items():
            (root / name).write_bytes(data)

    yield steps(root, trace), back, after


def assert_whole(root: Path, before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Each file is the old one or the new one, and dnsmasq never sees a staged one (its name begins with a dot)."""
    for name, data in contents(root).items():
        if Path(name).name.startswith(".") or name.startswith(JOURNAL):
            continue
        assert without_times(data) in (without_times(before[name]), without_times(after[name])), name
    assert contents(root).keys() >= before.keys()


def assert_repaired(root: Path, after: dict[str, bytes]) -> None:
    update_from(root, NEW)
    found = contents(root)
    # A disk that lets files be removed and none be renamed takes the copy of the old list; without it the new list is
    # the measure of the next one.
    if (earlier := f"{VAR}/gfwlist.earlier") not in found:
        after = {name: data for name, data in after.items() if name != earlier}
    assert found.keys() == after.keys(), "something was left behind"
    for name in after:
        if not name.endswith("state.json"):
            assert found[name] == after[name], name
    assert not read_state(root / VAR / "state.json").problem


#: System call -> the errors that a disk gives to it.
ERRORS = {
    "openat": ("ENOSPC", "EROFS", "EACCES"),
    "write": ("ENOSPC", "EIO"),
    "fsync": ("EIO", "ENOSPC"),
    "fchmod": ("EROFS",),
    "rename": ("EROFS", "EACCES", "EIO"),
    "mkdir": ("EACCES",),
    "chmod": ("EACCES",),
    "flock": ("ENOLCK",),
    "pwrite64": ("ENOSPC",),
}


@pytest.mark.each_step
@pytest.mark.parametrize("call", ["openat", "write", "fsync", "rename"])
def test_when_any_write_fails_nothing_is_changed_and_the_reason_is_told(root: Path, call: str) -> None:
    with a_host_between_two_lists(root) as (found, back, after):
        chosen = [step for step in found if step.call == call]
        assert len(chosen) >= 4
        for index, step in enumerate(chosen):
            back()
            before = contents(root)
            error = ERRORS[call][index % len(ERRORS[call])]
            code, message, _ = traced(root, "-e", f"inject={call}:error={error}:when={step.number}")
            assert code == 1, (step, error, message)
            assert os.strerror(getattr(__import__("errno"), error)) in message, (step, message)
            assert message.count("\n") == 1, message
            assert contents(root) == before, (step, error)
        assert_repaired(root, after)
    assert_answers(root)


@pytest.mark.each_step
@pytest.mark.parametrize(
    ("call", "error"), [("write", "ENOSPC"), ("fsync", "EIO"), ("rename", "EROFS"), ("openat", "ENOSPC")]
)
def test_when_the_disk_fails_from_one_write_on_every_file_is_whole(root: Path, call: str, error: str) -> None:
    with a_host_between_two_lists(root) as (found, back, after):
        for step in [step for step in found if step.call == call]:
            back()
            before = contents(root)
            code, message, _ = traced(root, "-e", f"inject={call}:error={error}:when={step.number}+")
            assert code == 1, (step, message)
            assert call == "write" or message.startswith("gfwtools: "), message  # standard error is written as well
            assert_whole(root, before, after)
        assert_repaired(root, after)
    assert_answers(root)


@pytest.mark.each_step
@pytest.mark.parametrize("call", ["pwrite64", "flock", "fchmod", "unlink"])
def test_the_steps_around_a_write_may_fail_as_well(root: Path, call: str) -> None:
    with a_host_between_two_lists(root) as (found, back, after):
        chosen = [step for step in found if step.call == call]
        for step in chosen[:2]:
            back()
            before = contents(root)
            code, message, _ = traced(root, "-e", f"inject={call}:error=EACCES:when={step.number}")
            assert (code == 1) == (message.count("\n") == 1), (step, message)
            if code:
                assert contents(root) == before, step
        assert_repaired(root, after)


@pytest.mark.each_step
def test_killed_at_any_step_of_its_first_run_nothing_stands_in_the_way_of_the_second(tmp_path: Path) -> None:
    first, later = tmp_path / "first", tmp_path / "later"
    for folder in (first, later):
        folder.mkdir()
        (folder / "list.txt").write_bytes(NEW)
    _, errors, trace = traced(first)
    assert not errors
    after = contents(first)
    for step in [step for step in steps(first, trace) if step.call in ("mkdir", "chmod", "rename", "write")]:
        shutil.rmtree(later)
        later.mkdir()
        (later / "list.txt").write_bytes(NEW)
        code, _, _ = traced(later, "-e", f"inject={step.call}:signal=SIGKILL:when={step.number}")
        assert code
        found = {name for name in contents(later) if not name.startswith(JOURNAL)}
        staged = {name for name in found if os.path.basename(name).startswith(".gfwtools-")}
        assert {os.path.basename(name) for name in found - staged} <= {*map(os.path.basename, after)}
        assert_repaired(later, after)
        folders = [path for path in later.rglob("*") if path.is_dir()]
        assert all(path.stat().st_mode & 0o777 == 0o755 for path in folders), step


@pytest.mark.each_step
def test_killed_at_any_step_every_file_is_whole_and_the_next_run_finishes(root: Path) -> None:
    """A new list, a new seed and another layout, so that files are made, replaced and removed.

    After SIGTERM and SIGINT the host is as it was, or done; after SIGKILL it may be in between.
    """
    configure(root, str(root / "list.txt"), more='[dns]\nlayout = "split"\n')
    (root / "list.txt").write_bytes(NEW)
    (root / "etc/gfwtools/deny.txt").write_text("192.0.2.1\nmine.example\n")
    before = masked(root)
    pristine = root.with_name(f"{root.name}.pristine")
    shutil.copytree(root, pristine)

    def update_once(number: int = 0, step: int = 0) -> killing.Run:
        shutil.rmtree(root)
        shutil.copytree(pristine, root)
        return server.run("-q", "update", number=number, before=step)

    with killing.fork_server(root) as server:
        undisturbed = update_once()
        assert (undisturbed.code, undisturbed.errors) == (0, "")
        assert {"create", "mkdir", "rename", "unlink", "fsync"} <= {*undisturbed.steps}
        after = masked(root)
        assert before[CONF] != after[CONF]
        state = f"{VAR}/state.json"
        for step in range(1, len(undisturbed.steps) + 1):
            # Of the two polite ends each step gets one; they share a handler.
            for number in (signal.SIGKILL, (signal.SIGTERM, signal.SIGINT)[step % 2]):
                run = update_once(number, step)
                where = f"{signal.Signals(number).name} before step {step}, {undisturbed.steps[step - 1]}: {run}"
                found = masked(root)
                if number == signal.SIGKILL:
                    assert run.code == -signal.SIGKILL, where
                    staged = {n for n in found if Path(n).name.startswith(".gfwtools-") or n.startswith(JOURNAL)}
                    for name in (found.keys() | before.keys() | after.keys()) - staged:
                        assert found.get(name) in (before.get(name), after.get(name)), f"{where}: {name}"
                else:
                    assert (run.code, run.errors.strip()) == (130, "gfwtools: interrupted"), where
                    assert found in (before, after), where
                    continue
                answer = server.run("check", "domain", "www.google.com")
                assert answer.code == 0, f"{where}: {answer}"
                assert answer.output.startswith("www.google.com: tunnel\n"), f"{where}: {answer}"
                assert server.run("-q", "update").code == 0, where
                found = masked(root)
                assert found.keys() == after.keys(), where
                assert {name for name in found if found[name] != after[name]} <= {state}, where
                states = [json.loads(data[state])["policies"]["gfwlist"] for data in (found, after)]
                assert states[0]["files"] == states[1]["files"], where


def masked(root: Path) -> dict[str, bytes]:
    return {name: without_times(data) for name, data in contents(root).items()}


def test_interrupted_while_a_mirror_hangs_it_ends_at_once_and_changes_nothing(root: Path) -> None:
    before = contents(root)
    with Server(faults.hang_before_headers()) as server:
        configure(root, server.url)
        path = root / "etc/gfwtools/config.toml"
        path.write_text(path.read_text().replace("timeout = 1\n", "timeout = 60\n", 1))
        for number in (signal.SIGTERM, signal.SIGINT):
            process = subprocess.Popen(
                [sys.executable, "-m", "gfwtools", "--root", str(root), "update"], stderr=subprocess.PIPE, text=True
            )
            asked = len(server.requests)
            while len(server.requests) == asked:
                assert process.poll() is None
            process.send_signal(number)
            _, errors = process.communicate(timeout=5)
            assert process.returncode
            assert "Traceback" not in errors
            assert contents(root) == before


# ---------------------------------------------------------------- real disks


@pytest.mark.e2e
def test_however_full_the_disk_is_an_update_is_done_or_not_done(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        configure(tmp_path, "/nowhere")
        update_from(tmp_path, OLD)
        before = contents(tmp_path)
        update_from(tmp_path, NEW)
        after = contents(tmp_path)
        done = []
        for free in range(30):
            (tmp_path / "fill").unlink(missing_ok=True)
            update_from(tmp_path, OLD)
            (tmp_path / "list.txt").write_bytes(NEW)
            before = contents(tmp_path)
            room = os.statvfs(tmp_path).f_bavail - free
            (tmp_path / "fill").write_bytes(bytes(4096 * max(0, room)))
            try:
                update(load(tmp_path / "etc/gfwtools/config.toml", tmp_path), sources=[str(tmp_path / "list.txt")])
                done.append(True)
            except GfwtoolsError as error:
                assert "No space left on device" in str(error)
                done.append(False)
            found = contents(tmp_path)
            found.pop("fill", None)
            if done[-1]:
                assert found.keys() == after.keys()
                assert found[CONF] == after[CONF]
            else:
                assert found == before, f"{free} pages free"
        assert not done[0]
        assert done[-1]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.e2e
@pytest.mark.parametrize("folder", ["etc/dnsmasq.d", VAR, "."])
def test_on_a_read_only_mount_nothing_is_changed_and_the_reason_is_told(root: Path, folder: str) -> None:
    place = root / folder
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        before = contents(root)
        source = root.with_name(f"{root.name}.txt")
        source.write_bytes(NEW)
        result = gfwtools(root, "update", "--source", str(source), code=1)
        assert "Read-only file system" in result.stderr
        assert "run as root" not in result.stderr  # it is
        assert result.stderr.count("\n") == 1
        assert contents(root) == before
        assert_answers(root)
    finally:
        subprocess.run(["umount", place], check=True)
    update_from(root, NEW)
    assert "new.example" in (root / VAR / "gfwlist.domains").read_text()


@pytest.mark.e2e
def test_a_first_file_that_cannot_be_written_is_no_file_that_cannot_be_removed(tmp_path: Path) -> None:
    folder = tmp_path / "etc/dnsmasq.d"
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", folder], check=True)
    source = tmp_path / "list.txt"
    source.write_bytes(NEW)
    try:
        told = gfwtools(tmp_path, "update", "--source", str(source), code=1).stderr
    finally:
        subprocess.run(["umount", folder], check=True)
    assert told.endswith(f"{folder}: cannot write there: Read-only file system; nothing was changed\n")


def test_a_file_in_place_of_dnsmasqs_folder_is_told_and_stays(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/dnsmasq.d").write_text("mine\n")
    source = tmp_path / "list.txt"
    source.write_bytes(NEW)
    told = gfwtools(tmp_path, "update", "--source", str(source), code=1).stderr
    assert told.endswith("etc/dnsmasq.d: cannot write there: Not a directory; nothing was changed\n")
    assert (tmp_path / "etc/dnsmasq.d").read_text() == "mine\n"


def everything(root: Path) -> dict[str, bytes]:
    """With the folders, and without what a run may change in any case."""
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else b""
        for path in root.rglob("*")
        if path.name != "lock"
    }


@pytest.mark.each_step
@pytest.mark.parametrize("link", [False, True])
def test_of_a_foreign_file_no_copy_stays_where_nothing_was_changed(tmp_path: Path, link: bool) -> None:
    """Ended before each step on the disk, the update is done or has left nothing; killed, the next one clears up."""
    root, pristine = tmp_path / "root", tmp_path / "pristine"
    place = root / CONF
    configure(root, str(root / "list.txt"))
    (root / VAR).mkdir(parents=True)
    (root / "list.txt").write_bytes(NEW)
    place.parent.mkdir()
    if link:
        place.symlink_to("elsewhere")
    else:
        place.write_text("server=/mine.example/192.0.2.1\n")
    shutil.copytree(root, pristine, symlinks=True)

    def update_once(number: int = 0, step: int = 0) -> killing.Run:
        shutil.rmtree(root)
        shutil.copytree(pristine, root, symlinks=True)
        return server.run("-q", "update", number=number, before=step)

    before = everything(root)
    with killing.fork_server(root) as server:
        undisturbed = update_once()
        assert undisturbed.code == 0
        assert Journal(Paths(root)).kept_entries("file").keys() == {f"/{CONF}"}
        after = everything(root)
        for step in range(1, len(undisturbed.steps) + 1):
            run = update_once(signal.SIGTERM, step)
            where = f"before step {step}, {undisturbed.steps[step - 1]}: {run}"
            assert run.code == 130, where
            found = everything(root)
            assert found == before or (found.keys() == after.keys() and found[CONF] == after[CONF]), where
            update_once(signal.SIGKILL, step)
            assert server.run("-q", "update").code == 0, where
            assert everything(root).keys() == after.keys(), where


@pytest.mark.e2e
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_nobody_may_change_keeps_all_the_others_as_they_were(root: Path, name: str) -> None:
    """Root may write anywhere, but not over an immutable file; tmpfs has no such attribute, a mount on the file has
    the same effect (EBUSY)."""
    path = root / name
    subprocess.run(["mount", "--bind", path, path], check=True)
    try:
        before = contents(root)
        source = root.with_name(f"{root.name}.txt")
        source.write_bytes(NEW)
        if name.endswith(".ipset"):  # the seed changes with the list's addresses only
            (root / "etc/gfwtools/deny.txt").write_text("192.0.2.1\n")
        if name.endswith(".direct"):  # and what is direct again, with exceptions and allow.txt
            (root / "etc/gfwtools/allow.txt").write_text("www.new.example\n")
        result = gfwtools(root, "update", "--source", str(source), code=1)
        assert "busy" in result.stderr
        assert result.stderr.count("\n") == 1
        assert contents(root) == before
    finally:
        subprocess.run(["umount", path], check=True)
    update_from(root, NEW)
    assert_answers(root)


# ---------------------------------------------------------------- damaged files

STATES = {
    "empty": b"",
    "cut short": b'{"version": 1, "policies": {"gfwlist": {"source"',
    "of a later version": b'{"version": 2, "policies": {"gfwlist": {"source": ["new", "shape"]}}}',
    "of another program": b'{"name": "somebody", "policies": 7}',
    "binary": bytes(range(256)),
    "nested deeply": b"[" * 200_000,
    "with a wrong type": b'{"version": 1, "policies": {"gfwlist": {"source": 7}}}',
    "with a wrong digest": b'{"version": 1, "policies": {"gfwlist": {"list_digest": "0", "inputs": "0", "files": {"/x": "0"}}}}',
    "with a half surrogate": b'{"version": 1, "policies": {"gfwlist": {"source": "\\ud800", "history": []}}}',
    "with a validator that lies": b'{"version": 1, "policies": {"gfwlist": {"mirrors": {"u": {"etag": "x\\r\\ny: z"}}}}}',
    "with files elsewhere": b'{"version": 1, "policies": {"gone": {"files": {"/etc/precious": "0", "/../../precious": "0"}}}}',
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_with_a_damaged_or_foreign_state_it_answers_and_the_next_run_writes_it_anew(root: Path, name: str) -> None:
    precious = root / "etc/precious"
    precious.write_text("precious")
    good = contents(root)
    path = root / VAR / "state.json"
    path.write_bytes(STATES[name])
    assert_answers(root)
    with Server(faults.good(OLD, etag='"x"')) as server:
        configure(root, server.url)
        result = gfwtools(root, "update")
    assert "Traceback" not in result.stderr
    found = contents(root)
    assert {key: data for key, data in found.items() if key != f"{VAR}/state.json"} == {
        key: data for key, data in good.items() if key != f"{VAR}/state.json"
    }
    assert precious.read_text() == "precious"
    domains = (root / VAR / "gfwlist.domains").read_text().splitlines()
    assert read_state(path).of("gfwlist").domains == len(domains) > 0
    assert not read_state(path).problem


LISTS = {
    "empty": b"",
    "blank": b"\n\n\n",
    "cut short": base64.b64decode(OLD)[:-100],
    "binary": bytes(range(256)) * 10,
    "a web page": b"<!DOCTYPE html><html></html>",
    "broken base64": b"QUJD" * 100 + b"Q",
    "another list": b"[AutoProxy 0.2.9]\n||other.example\n||google.com\n",
    "larger than the limit": b"||a.example\n" * 100_000,
    "one line of ten megabytes": b"||" + b"x" * 900_000,
}


@pytest.mark.parametrize("name", LISTS)
def test_with_a_damaged_last_good_list_the_next_run_repairs(root: Path, name: str) -> None:
    good = contents(root)
    (root / VAR / "gfwlist.list").write_bytes(LISTS[name])
    result = gfwtools(root, "check", "domain", "www.google.com", code=None)
    assert "Traceback" not in result.stderr
    with Server(faults.good(OLD)) as server:
        configure(root, server.url)
        gfwtools(root, "update")
    found = contents(root)
    assert {key: data for key, data in found.items() if key != f"{VAR}/state.json"} == {
        key: data for key, data in good.items() if key != f"{VAR}/state.json"
    }
    assert_answers(root)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link", "link to itself"])
def test_what_is_no_file_at_a_files_place_is_told_or_replaced_and_never_waited_for(
    root: Path, name: str, kind: str
) -> None:
    path = root / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
        (path / "kept").write_text("kept")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to itself":
        path.symlink_to(path.name)
        assert_answers(root)
    else:
        path.symlink_to(root / "nowhere" / "at all")
    (root / "list.txt").write_bytes(NEW)
    if kind == "link to itself":
        gfwtools(root, "update", "--source", str(root / "list.txt"), "--dry-run")
    result = gfwtools(root, "update", "--source", str(root / "list.txt"), code=0 if "link" in kind else None)
    assert "Traceback" not in result.stderr
    if result.returncode:
        assert str(path) in result.stderr or str(path.parent) in result.stderr
        assert result.stderr.count("\n") == 1
        shutil.rmtree(path) if kind == "folder" else path.unlink()
        update_from(root, NEW)
    assert path.is_file()
    assert not path.is_symlink()
    assert not (root / "nowhere").exists()
    assert_answers(root)


@pytest.mark.parametrize("data", [b"\x00\xff\xfe", b"\xff" * 5000, b"a" * 1_000_000, b"\n" * 100_000], ids=range(4))
def test_a_users_list_that_is_no_text_stops_nothing(root: Path, data: bytes) -> None:
    (root / "etc/gfwtools/allow.txt").write_bytes(data)
    (root / "etc/gfwtools/deny.txt").write_bytes(b"mine.example\n" + data)
    result = gfwtools(root, "update", "--offline")
    assert "Traceback" not in result.stderr
    assert "mine.example\n" in (root / VAR / "gfwlist.domains").read_text()
    assert len(result.stderr) < 100_000

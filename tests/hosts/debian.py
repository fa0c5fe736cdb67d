"""Debian's roots for the hosts: made once by debootstrap, kept in the cache folder of the user, shared by all hosts.

A disk of a host is an overlay: its own changes, above the packages of its kind, above the root of its suite. The mirror
is the one that this machine's own apt uses.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from paths import REPO

__all__ = [
    "CHROOT_PATH",
    "PREFIX",
    "Unavailable",
    "cgroup",
    "lacking",
    "layers",
    "new_disk",
    "overlay",
    "run_in",
    "say",
]

#: What every host has. The kinds add their own (kinds.py).
PACKAGES = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "dnsmasq",
    "ipset",
    "iptables",
    "nftables",
    "iproute2",
    "wireguard-tools",
    "wireguard-go",
    "python3",
    "python3-venv",
    "cron",
    "iputils-ping",
    "procps",
    "ca-certificates",
    "curl",
]
CHROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#: Program -> package, of what builds the roots.
PROGRAMS = {
    "debootstrap": "debootstrap",
    "unshare": "util-linux",
    "mount": "mount",
    "tcpdump": "tcpdump",
    "pgrep": "procps",
}
#: Where the program of a host lies, as `make install` puts it.
PREFIX = "opt/gfwtools"

_HERE = Path(__file__).parent


class Unavailable(Exception):
    """A host of this suite cannot be built here: the reason, in words."""


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "gfwtools-hosts")


def lacking() -> str:
    """Why no host can be built on this machine; empty where one can."""
    if os.geteuid() != 0:
        return "not root: hosts need namespaces and a chroot; run it with sudo"
    missing = sorted({package for program, package in PROGRAMS.items() if shutil.which(program, path=_path()) is None})
    if missing:
        return f"programs are missing: apt-get install {' '.join(missing)}"
    if not Path("/dev/net/tun").exists():
        return "no /dev/net/tun: wireguard-go needs it; modprobe tun"
    if cgroup() is None:
        return "no cgroup2 that can be written: systemd needs one; mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified"
    return ""


def cgroup() -> Path | None:
    """The root of the cgroup2 hierarchy."""
    for folder in (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup")):
        if (folder / "cgroup.procs").exists() and (folder / "cgroup.controllers").exists():
            return folder if os.access(folder, os.W_OK) and not os.statvfs(folder).f_flag & os.ST_RDONLY else None
    return None


def layers(suite: str, packages: Sequence[str]) -> list[Path]:
    """The read-only folders of a disk, the uppermost first: the program, the packages of the kind, the suite.

    :raises Unavailable: where one of them cannot be built
    """
    base = _base(suite)
    added = [_packages(base, sorted(packages))] if packages else []
    return [_program(base), *added, base]


def new_disk() -> Path:
    """A new folder with what mount(8) wants of a disk: upper, work and the place for it, root."""
    # The folders of temporary files may be in memory; the cache is on a disk, and an overlay can lie on it.
    for left in _cache().glob("disk-*"):
        if not Path("/proc", left.name.split("-")[1]).exists():  # of a run that was killed
            shutil.rmtree(left, ignore_errors=True)
    disk = Path(tempfile.mkdtemp(prefix=f"disk-{os.getpid()}-", dir=_cache()))
    for name in ("upper", "work", "root"):
        (disk / name).mkdir()
    disk.chmod(0o755)
    return disk


# ------------------------------------------------------------------------------------------------- what is built


def _base(suite: str) -> Path:
    root = _cache() / f"{suite}-{_digest(*PACKAGES, (_HERE / 'chroot.sh').read_text('utf-8'))}"
    with _building(root) as new:
        if new:
            _debootstrap(suite, new)
            _finish(new)
    return root


def _debootstrap(suite: str, root: Path) -> None:
    say(f"building the root of {suite} (once, some minutes, 350 MB in {_cache()})")
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, str(root), mirror(suite)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PATH": _path()})
    if done.returncode:
        raise Unavailable(f"debootstrap {suite}: {_last_line(done.stdout + done.stderr)}")


def _finish(root: Path) -> None:
    (root / "etc/hostname").write_text("gateway\n", "ascii")
    (root / "etc/hosts").write_text("127.0.0.1 localhost gateway\n", "ascii")
    (root / "etc/machine-id").write_text("", "ascii")
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    # A host has no network for apt; what is installed again comes from here.
    for package in (root / "var/cache/apt/archives").glob("*.deb"):
        if not package.name.startswith("dnsmasq"):
            package.unlink()
    units = root / "etc/systemd/system"
    # No login prompt for a console that is not there.
    for unit in ("console-getty.service", "getty.target"):
        (units / unit).symlink_to("/dev/null")
    # All devices but those of the network are this machine's.
    trigger = units / "systemd-udev-trigger.service.d/network-only.conf"
    trigger.parent.mkdir()
    trigger.write_text(
        "[Service]\nExecStart=\nExecStart=-udevadm trigger --type=devices --action=add --subsystem-match=net\n", "ascii"
    )
    run_in([root], None, "apt-get", "update", "-qq", network=True)


def _packages(base: Path, packages: list[str]) -> Path:
    """A layer above ``base`` with ``packages`` and what they need."""
    layer = base.with_name(f"{base.name}+{'+'.join(packages)}")
    with _building(layer) as new:
        if new:
            say(f"installing {' '.join(packages)} above {base.name}")
            # No cache of its lists: 80 MB that nobody reads again.
            apt = ("apt-get", "-qq", "-y", "-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=")
            # Its lists may be older than the mirror: what they name can be gone.
            run_in([base], new, *apt, "update", network=True)
            apt = (*apt, "--no-install-recommends", "install")
            run_in([base], new, *apt, "--download-only", *packages, network=True)
            # resolv.conf is the packages' to make: it must not be there while they are installed.
            run_in([base], new, *apt, "--no-download", *packages)
            for package in (new / "var/cache/apt/archives").glob("*.deb"):
                package.unlink()
    return layer


def _program(base: Path) -> Path:
    """A layer with the environment of `make install`: the locked packages for the Python of ``base``."""
    lock = REPO / "requirements.lock"
    layer = base.with_name(f"{base.name}+python-{_digest(lock.read_text('utf-8'))}")
    with _building(layer) as new:
        if new:
            run_in([base], new, "python3", "-m", "venv", "--without-pip", f"/{PREFIX}")
            target = next((new / PREFIX / "lib").glob("python3*/site-packages"))
            version = target.parent.name.removeprefix("python")
            pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--target", str(target)]
            chosen = ["--python-version", version, "--only-binary", ":all:", "--require-hashes", "--no-deps"]
            done = subprocess.run([*pip, *chosen, "-r", str(lock)], capture_output=True, text=True, check=False)
            if done.returncode:
                raise Unavailable(f"pip for Python {version}: {_last_line(done.stderr)}")
            run_in([base], new, f"/{PREFIX}/bin/python3", "-m", "compileall", "-q", f"/{PREFIX}/lib")
    return layer


# ------------------------------------------------------------------------------------------------- how it is built


@cache
def mirror(suite: str) -> str:
    """The mirror of this machine's apt that has ``suite``.

    :raises Unavailable: where none has it, or none answers
    """
    found = list(dict.fromkeys(_of_apt()))
    why = ""
    for uri in found:
        if not uri.startswith(("http://", "https://")):
            continue
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/dists/{suite}/InRelease", timeout=10) as answer:
                if b"Origin: Debian\n" in answer.read(4096):
                    return uri
        except (OSError, ValueError) as error:
            why = why or f"; {uri}: {error}"
    raise Unavailable(f"no mirror in /etc/apt/sources.list or sources.list.d gives Debian {suite}{why}")


def _of_apt() -> Iterator[str]:
    folder = Path("/etc/apt")
    for path in (folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))):
        if path.is_file():
            text = path.read_text("utf-8", "replace")
            for line in re.findall(r"^URIs:(.*)$", text, re.MULTILINE):
                yield from line.split()
            yield from re.findall(r"^deb\s+(?:\[[^\]]*\]\s+)?(\S+)", text, re.MULTILINE)


def run_in(below: Sequence[Path], upper: Path | None, *argv: str, network: bool = False, stdin: str = "") -> str:
    """Run a command in a root that is off: the folders ``below``, with ``upper`` taking what it changes.

    :param upper: None, where the only folder below is to be changed itself
    :param network: with the network and the resolv.conf of this machine; otherwise it has neither
    :returns: its standard output
    :raises Unavailable: where it fails
    """
    script = ["sh", str(_HERE / "chroot.sh"), "network" if network else "alone"]
    with tempfile.TemporaryDirectory(prefix="gfw-root-") as mount, _work_beside(upper) as work:
        where = overlay(below, upper, work) if upper and work else str(below[0])
        namespaces = ["unshare", "--mount", *([] if network else ["--net"])]
        done = subprocess.run(
            [*namespaces, *script, mount, where, *argv],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PATH": _path()},
        )
    if done.returncode:
        raise Unavailable(f"{' '.join(argv)}: {_last_line(done.stderr + done.stdout)}")
    return done.stdout


def overlay(below: Sequence[Path], upper: Path, work: Path) -> str:
    """The options of mount(8) for a disk."""
    return f"lowerdir={':'.join(map(str, below))},upperdir={upper},workdir={work}"


@contextmanager
def _work_beside(upper: Path | None) -> Iterator[Path | None]:
    if upper is None:
        yield None
        return
    work = Path(tempfile.mkdtemp(prefix=f".{upper.name}.", dir=upper.parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _building(folder: Path) -> Iterator[Path | None]:
    """A folder to build ``folder`` in, which gets its name when it is whole; None where it is there already."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            yield None
            return
        new = folder.with_name(f"new-{folder.name}")
        shutil.rmtree(new, ignore_errors=True)  # of a run that was killed
        new.mkdir()
        try:
            yield new
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise
        new.rename(folder)


def _digest(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:8]


def _path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"))


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return next(
        (line for line in reversed(lines) if line.startswith(("E:", "ERROR"))), lines[-1] if lines else "no output"
    )


def say(words: str) -> None:
    """Past pytest's capture: it takes minutes."""
    print(words, file=sys.__stderr__, flush=True)

"""``make bench``: one table from one run, gfwtools beside its peers, whole processes, medians.

``python bench/bench.py [SECTION...]`` measures some of it: update, check, mirrors, start, library, hostile, dnsmasq.
The peers are

- gfwlist2dnsmasq.sh, where ``GFWLIST2DNSMASQ_SH`` names it; the address in it is replaced by our server's,
- genpac, where pip can install it from PyPI into bench/.genpac, an environment of its own.

``BENCH_RUNS`` (5) runs each; ``BENCH_SIZES`` ("today 100000 1000000"). Lists are served from the loopback in base64, as
mirrors do; nothing leaves this machine but the installation of genpac.
"""

import os
import platform
import re
import select
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from hostile import FORMATS, SHAPES

from gfwtools.lists.decode import MAX_BYTES

HERE = Path(__file__).resolve().parent
REPO = HERE.parent
REAL = REPO.parent / "shared" / "data" / "gfwlist-2026-08-06.txt"
RUNS = int(os.environ.get("BENCH_RUNS", "5"))
SIZES = os.environ.get("BENCH_SIZES", "today 100000 1000000").split()
GFWTOOLS = (sys.executable, "-m", "gfwtools")
#: No set of this name is in any kernel: what dnsmasq learns here goes nowhere.
SET = "gfwbench"
UPSTREAM_PORT, DNS_PORT = 5391, 5392
#: The environment of every process that is measured: no proxy and no settings of the person who measures. Without
#: PYTHONDONTWRITEBYTECODE above all: as installed, no module is compiled at every start.
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.lower().endswith("_proxy") and not name.startswith(("GFWTOOLS_", "PYTHON"))
}


#: Seconds that a run may take; genpac needs many minutes for a million rules.
LIMIT = 60.0


class Cost(NamedTuple):
    """Medians over the runs."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of user and system time, children included."""
    memory: float
    """Peak resident size in MB of the largest process."""

    def __str__(self) -> str:
        return f"{self.wall:.3f} s, {self.cpu:.3f} s, {self.memory:.0f} MB"


class TookTooLongError(Exception):
    """A process was ended after :data:`LIMIT`."""


def once(argv: tuple[str, ...], *, refused: bool = False) -> Cost:
    """One run of a process. This program stays small: a child's peak is never below its parent's size at the fork.

    :param refused: it may also exit with 1.
    """
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=output, env=ENVIRONMENT)
        descriptor = os.pidfd_open(process.pid)
        in_time = select.select([descriptor], [], [], LIMIT)[0]
        os.close(descriptor)
        if not in_time:
            process.kill()
            process.wait()
            raise TookTooLongError
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode and not (refused and process.returncode == 1):
            output.seek(0)
            sys.exit(f"{' '.join(argv)} gave {process.returncode}:\n{output.read().decode('utf-8', 'replace')}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def measure(*commands: Callable[[], list[str | Path]]) -> list[Cost | None]:
    """The medians of :data:`RUNS` runs of each, after one that fills the caches; None for one that took too long.

    They run by turns: a machine that others use as well is not as fast a minute later. Each of ``commands`` is called
    before each of its runs, unmeasured.
    """
    costs: list[list[Cost]] = [[] for _ in commands]
    for turn in range(RUNS + 1):
        for index, command in enumerate(commands):
            if len(costs[index]) == turn:  # it has ended in time so far
                with suppress(TookTooLongError):
                    costs[index].append(once(tuple(map(str, command()))))
    return [
        Cost(*(statistics.median(values) for values in zip(*runs[1:], strict=True))) if len(runs) > RUNS else None
        for runs in costs
    ]


# ---------------------------------------------------------------- lists


def write_lists(folder: Path) -> dict[str, Path]:
    """Every list as published, in a process of its own for the sake of our size."""
    lists = {}
    for size in SIZES:
        path = folder / f"{size}.txt"
        if size == "today" and REAL.exists():
            shutil.copy(REAL, path)
        else:
            count = "4300" if size == "today" else size
            program = "import base64, subprocess, sys; out = subprocess.run([sys.executable, *sys.argv[2:]], \
stdout=-1, check=True).stdout; open(sys.argv[1], 'wb').write(base64.encodebytes(out))"
            subprocess.run([sys.executable, "-c", program, path, HERE / "generate.py", count], check=True)
        lists[size] = path
    return lists


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder over HTTP on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: socket.create_connection(("127.0.0.1", port), 1).close())
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_for(attempt: Callable[[], object], seconds: float = 60) -> float:
    """Try until it raises no OSError; how many seconds that took."""
    start = time.perf_counter()
    while True:
        try:
            attempt()
            return time.perf_counter() - start
        except OSError:
            if time.perf_counter() - start > seconds:
                raise
            time.sleep(0.001)


# ---------------------------------------------------------------- the tools


class Tool(NamedTuple):
    """One of the tools that are compared."""

    name: str
    convert: Callable[[str, Path], list[str | Path]]
    """The URL of a list, the file to write -> the command; called before each run, it leaves a fresh host."""


def gfwtools_tool(folder: Path) -> Tool:
    def convert(url: str, output: Path) -> list[str | Path]:
        root = output.with_suffix(".root")
        shutil.rmtree(root, ignore_errors=True)
        (root / "etc/gfwtools").mkdir(parents=True)
        (root / "etc/gfwtools/config.toml").write_text(
            '[host]\nbackend = "iptables"\n[policy.gfwlist]\n'
            f'sources = ["{url}"]\nupstream = ["127.0.0.1#{UPSTREAM_PORT}"]\nset = "{SET}"\n'
        )
        output.unlink(missing_ok=True)
        output.symlink_to(root / "etc/dnsmasq.d/gfwlist.conf")
        return [*GFWTOOLS, "--root", root, "update"]

    return Tool("gfwtools", convert)


def shell_tool(folder: Path) -> Tool | None:
    name = os.environ.get("GFWLIST2DNSMASQ_SH")
    if not name:
        return None
    text = Path(name).read_text()

    def convert(url: str, output: Path) -> list[str | Path]:
        script = folder / "gfwlist2dnsmasq.sh"
        script.write_text(re.sub(r"(?m)^(\s*BASE_URL=).*$", rf"\1'{url}'", text))
        shell = "bash" if re.match(r"#!?\s*/bin/bash", text) else "sh"
        return [shell, script, "-d", "127.0.0.1", "-p", str(UPSTREAM_PORT), "-s", SET, "-o", output]

    return Tool("gfwlist2dnsmasq.sh", convert)


def genpac_tool(folder: Path) -> Tool | None:
    program = HERE / ".genpac" / "bin" / "genpac"
    if not program.exists():
        # A peer that cannot be installed is a column that stays empty.
        with suppress(subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError):
            environment = HERE / ".genpac"
            subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=60)
            install = [environment / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "genpac"]
            subprocess.run(install, check=True, timeout=120, stderr=subprocess.DEVNULL)
    if not program.exists():
        return None

    def convert(url: str, output: Path) -> list[str | Path]:
        dns = f"127.0.0.1#{UPSTREAM_PORT}"
        options = ["--gfwlist-url", url, "--dnsmasq-dns", dns, "--dnsmasq-ipset", SET, "--output", output]
        return [program, "--format", "dnsmasq", *options]

    return Tool("genpac", convert)


# ---------------------------------------------------------------- the sections


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    print(f"\n{title}\n")
    print(f"| {' | '.join(head)} |")
    print(f"| --- |{' ---: |' * (len(head) - 1)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.stdout.flush()


def section_update(tools: list[Tool], lists: dict[str, Path], url: str, folder: Path) -> None:
    """From a list on a server to the files on disk."""
    rows = []
    walls: dict[str, float] = {}
    for size, path in lists.items():
        found = measure(
            *(partial(tool.convert, f"{url}/{path.name}", folder / f"{size}.{tool.name}.conf") for tool in tools)
        )
        title = f"{size} rules" if size != "today" else "today's list"
        rows.append([title, *(str(cost) if cost else f"over {LIMIT:.0f} s" for cost in found)])
        if found[0]:
            walls[size] = found[0].wall
    table("A list on a loopback server to files on disk (wall, CPU, peak memory)", ["", *(t.name for t in tools)], rows)
    if {"100000", "1000000"} <= walls.keys():
        print(f"\nGrowth: ten times the rules take {walls['1000000'] / walls['100000']:.1f} times the time.")


def section_check(tools: list[Tool], lists: dict[str, Path], url: str, folder: Path) -> None:
    """What a person, or cron, waits for."""
    rows = []
    for size, path in lists.items():
        output = folder / f"{size}.check.conf"
        once(tuple(map(str, tools[0].convert(f"{url}/{path.name}", output))))
        command: list[str | Path] = [*GFWTOOLS, "--root", output.with_suffix(".root")]
        found = measure(*([*command, *words].copy for words in (["check", "domain", "google.com"], ["update"])))
        rows.append([f"{size} rules" if size != "today" else "today's list", *map(str, found)])
    table(
        "gfwtools on a host that has the list (wall, CPU, peak memory)", ["", "check domain", "unchanged update"], rows
    )


@contextmanager
def silent_mirror() -> Iterator[str]:
    """A URL to connect to which hangs: the queue of its listening socket is full, so that the kernel drops the SYN."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/list"


def section_mirrors(tools: list[Tool], lists: dict[str, Path], url: str, folder: Path) -> None:
    """What dead mirrors before the living one cost: the first update, and one that finds nothing new."""
    good = f"{url}/{next(iter(lists.values())).name}"
    rows = []
    for count in (0, 1, 5):
        root = folder / f"mirrors.{count}"
        configuration = root / "etc/gfwtools/config.toml"
        configuration.parent.mkdir(parents=True)
        command: list[str | Path] = [*GFWTOOLS, "--root", root, "update"]
        with ExitStack() as stack:
            sources = [*(stack.enter_context(silent_mirror()) for _ in range(count)), good]
            configuration.write_text(f'[host]\nbackend = "iptables"\n[policy.gfwlist]\nsources = {sources}\n')

            def fresh(command: list[str | Path] = command, state: Path = root / "var") -> list[str | Path]:
                shutil.rmtree(state, ignore_errors=True)
                return command

            (first,) = measure(fresh)
            (later,) = measure(command.copy)
        rows.append([f"{count} of {count + 1}", *(f"{cost.wall:.2f} s" if cost else "" for cost in (first, later))])
    table("Silent mirrors before the one that answers (wall)", ["silent", "first update", "each one after it"], rows)


#: The packages that ``update`` cannot do without, as it imports them (gfwtools/fetch.py).
IMPORTS = "import sys; sys.modules['httpx._main'] = None; import click, httpx, httpcore"


def section_start(tools: list[Tool], lists: dict[str, Path], url: str, folder: Path) -> None:
    """What the interpreter and its imports cost."""
    commands: dict[str, list[str | Path]] = {
        '`python -c ""`': [sys.executable, "-c", ""],
        '`python -c "import click"`': [sys.executable, "-c", "import click"],
        "the same of httpx and httpcore": [sys.executable, "-c", IMPORTS],
        "`gfwtools --help`": [*GFWTOOLS, "--help"],
        "`gfwtools --version`": [*GFWTOOLS, "--version"],
    }
    costs = measure(*(command.copy for command in commands.values()))
    rows = [[name, str(cost)] for name, cost in zip(commands, costs, strict=True)]
    table("Start (wall, CPU, peak memory)", ["", "cost"], rows)


LOOKUPS = """
import sys, time
from gfwtools.lists.decode import decode
import gfwtools
policy = gfwtools.compile(open(sys.argv[1], "rb").read())
domains = policy.cover().tunnelled
kinds = {
    "blocked": [f"www.{name}" for name in domains],
    "free": [f"www.free{number}.example.org" for number in range(len(domains))],
}
for kind, names in kinds.items():
    names = (names * (200_000 // len(names) + 1))[:200_000]
    lookup, best = policy.lookup, []
    for _ in range(5):
        start = time.perf_counter()
        for name in names:
            lookup(name)
        best.append(len(names) / (time.perf_counter() - start))
    print(kind, sorted(best)[2])
"""


def section_library(tools: list[Tool], lists: dict[str, Path], url: str, folder: Path) -> None:
    """``policy.lookup`` in one process."""
    rows = []
    for size, path in lists.items():
        done = subprocess.run([sys.executable, "-c", LOOKUPS, path], capture_output=True, text=True, check=True)
        rates = dict(line.split() for line in done.stdout.splitlines())
        name = f"{size} rules" if size != "today" else "today's list"
        rows.append([name, *(f"{float(rates[kind]):,.0f}" for kind in ("blocked", "free"))])
    table("Look-ups a second in one process", ["", "blocked names", "free names"], rows)


#: What a list of any kind may take at most: seconds of CPU and MB.
MOST_CPU, MOST_MEMORY = 15.0, 500.0


def section_hostile(tools: list[Tool], lists: dict[str, Path], url: str, folder: Path) -> None:
    """The worst lists that are known, as large as fetch.max_bytes: an update with each, and a question after it."""
    rows = []
    for shape in SHAPES:
        root = folder / "hostile.root"
        shutil.rmtree(root, ignore_errors=True)
        (root / "etc/gfwtools").mkdir(parents=True)
        path = folder / "hostile.txt"
        subprocess.run([sys.executable, HERE / "hostile.py", shape, str(MAX_BYTES), path], check=True)
        (root / "etc/gfwtools/config.toml").write_text(
            f'[host]\nbackend = "iptables"\n[policy.gfwlist]\nsources = ["{path}"]\n'
            f'format = "{FORMATS.get(shape, "autoproxy")}"\n'
        )
        command = [*GFWTOOLS, "--root", str(root)]
        costs = [
            once((*command, *words), refused=True) for words in (["update"], ["check", "domain", "www.example.com"])
        ]
        over = any(cost.cpu > MOST_CPU or cost.memory * 2**20 > MOST_MEMORY * 10**6 for cost in costs)
        size = f"{path.stat().st_size / 10**6:.1f} MB"
        rows.append([shape, size, *map(str, costs), "over the limit" if over else ""])
    title = f"Hostile lists (wall, CPU, peak memory; one run each): at most {MOST_CPU:.0f} s and {MOST_MEMORY:.0f} MB"
    table(title, ["", "size", "`update`", "`check domain`", ""], rows)


# ---------------------------------------------------------------- dnsmasq


def question(port: int) -> None:
    """Ask for a name and wait 50 ms for any answer."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.05)
        asking.connect(("127.0.0.1", port))
        asking.send(b"\0\1\1\0\0\1\0\0\0\0\0\0\5start\7example\0\0\1\0\1")
        asking.recv(512)


@contextmanager
def dnsmasq(port: int, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """A dnsmasq in the foreground, and the seconds until its first answer."""
    program = shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "dnsmasq"
    command = [program, "-k", "--port", str(port), "--no-resolv", "--no-hosts", "--user=root", "--bind-interfaces"]
    command += ["--listen-address=127.0.0.1", "--pid-file", "--log-facility=/dev/null", "--cache-size=0", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process, wait_for(lambda: question(port))
    finally:
        process.kill()
        process.wait()


def rate(names: Path) -> float:
    """Queries a second, by dnsperf."""
    output = subprocess.run(
        ["dnsperf", "-s", "127.0.0.1", "-p", str(DNS_PORT), "-d", names, "-l", "2", "-c", "8", "-q", "100"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    match = re.search(r"Queries per second:\s+([\d.]+)", output)
    return float(match[1]) if match else 0.0


def section_dnsmasq(tools: list[Tool], lists: dict[str, Path], url: str, folder: Path) -> None:
    """What the file costs the daemon that reads it: root only, for dnsmasq fills sets."""
    if os.geteuid() or not shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
        print("\ndnsmasq: not measured; it needs root and dnsmasq")
        return
    runs = min(RUNS, 5)
    rows = []
    for size, path in lists.items():
        if size not in ("today", "100000"):
            continue  # the walk over the sets of a million domains answers nobody
        for tool in tools:
            output = folder / f"{size}.dns.{tool.name}.conf"
            once(tuple(map(str, tool.convert(f"{url}/{path.name}", output))))
            conf = output.resolve()
            entries = sum(line.startswith("server=") for line in conf.read_text().splitlines())
            starts, sizes = [], []
            for _ in range(runs):
                with dnsmasq(DNS_PORT, f"--conf-file={conf}", "--address=/start.example/10.0.0.1") as (process, took):
                    status = Path(f"/proc/{process.pid}/status").read_text()
                starts.append(took)
                sizes.append(int(status.split("VmRSS:")[1].split()[0]) / 1024)
            row = [f"{size}, {tool.name}", f"{entries:,}", f"{statistics.median(starts):.3f} s"]
            row.append(f"{statistics.median(sizes):.1f} MB")
            row += queries(conf, folder, runs) if shutil.which("dnsperf") else ["", ""]
            rows.append(row)
    head = ["", "domains", "start", "memory", "free names a second", "blocked names a second"]
    table("dnsmasq with each tool's file, paired layout", head, rows)


def queries(conf: Path, folder: Path, runs: int) -> list[str]:
    """Uncached queries a second, for names that no list has and for those that it has."""
    with conf.open() as lines:
        blocked = [line.split("/")[1] for line in lines if line.startswith("server=/") and "/#" not in line][:5000]
    kinds = {
        "free": (f"n{number}.free{number % 997}.example" for number in range(60_000)),
        "blocked": (f"n{number}.{blocked[number % len(blocked)]}" for number in range(60_000)),
    }
    rates = []
    upstream = f"--server=127.0.0.1#{UPSTREAM_PORT}"
    with dnsmasq(UPSTREAM_PORT, "--conf-file=/dev/null", "--address=/#/10.1.1.1"):
        for kind, names in kinds.items():
            path = folder / f"{kind}.names"
            path.write_text("".join(f"{name} A\n" for name in names))
            with dnsmasq(DNS_PORT, f"--conf-file={conf}", upstream, "--dns-forward-max=1000"):
                rates.append(f"{statistics.median(rate(path) for _ in range(runs)):,.0f}")
    return rates


SECTIONS = {
    "update": section_update,
    "check": section_check,
    "mirrors": section_mirrors,
    "start": section_start,
    "library": section_library,
    "hostile": section_hostile,
    "dnsmasq": section_dnsmasq,
}


def machine() -> str:
    """What the figures were measured on."""
    model = platform.machine()
    with suppress(OSError):
        found = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
        model = found[1] if found else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} x {model}, {memory:.0f} GB, {platform.system()} {platform.release()}, {python}"


def main() -> None:
    chosen = sys.argv[1:] or list(SECTIONS)
    if unknown := set(chosen) - SECTIONS.keys():
        sys.exit(f"no such section: {', '.join(sorted(unknown))}; give {', '.join(SECTIONS)}")
    with tempfile.TemporaryDirectory(prefix="gfwbench-") as name:
        folder = Path(name)
        (folder / "lists").mkdir()
        ENVIRONMENT["PYTHONPYCACHEPREFIX"] = str(folder / "pyc")
        tools = [tool for tool in (gfwtools_tool(folder), shell_tool(folder), genpac_tool(folder)) if tool]
        lists = write_lists(folder / "lists")
        print(f"{machine()}; medians of {RUNS}")
        missing = {"gfwlist2dnsmasq.sh", "genpac"} - {tool.name for tool in tools}
        if missing:
            print(f"\nnot there: {', '.join(sorted(missing))}")
        with served(folder / "lists") as url:
            for section in chosen:
                SECTIONS[section](tools, lists, url, folder)


if __name__ == "__main__":
    main()

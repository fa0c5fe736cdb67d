"""``make bench-dns`` (as root): what an update costs the clients of dnsmasq, and what the layouts cost a query.

Real dnsmasq on hosts of their own (network namespaces), dnsperf beside it, upstreams that answer at once. Bounded: some
two million questions in a minute and a half, all of them within the namespaces.

A blocked name of the split layout keeps four programs busy at once: dnsperf, two dnsmasqs, the upstream. On fewer cores
they take turns, and the rate tells how many cores there are. So there is a column for what the layouts themselves cost:
CPU time for a blocked name of the busier dnsmasq, which is the limit where it has a core to itself.
"""

import os
import random
import re
import shutil
import sys
import threading
import time
from itertools import product
from pathlib import Path
from statistics import median

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / "tests" / "e2e"), str(REPO / "bench")]

from fresh_host import MAIN, RESTART, FreshHost
from generate import rules

COUNT = 4_300
#: How often each rate is measured, and for how many seconds.
RUNS, SECONDS = 5, 3
REAL = REPO.parent / "shared" / "data"


def names() -> list[str]:
    return list(dict.fromkeys(rule[2:] for rule in rules(2 * COUNT) if re.fullmatch(r"\|\|[a-z0-9.-]+", rule)))[:COUNT]


def prepare(host: FreshHost, layout: str, blocked: list[str]) -> None:
    for port, net in ((5301, "10.1.1.1"), (5302, "10.2.2.2")):
        options = f"-k -C /dev/null -u root -p {port} -h -R -A /#/{net} -A /#/2001:db8::1 --pid-file=/run/{port}.pid"
        host.start("dnsmasq", *options.split(), "--listen-address=127.0.0.1", "--bind-interfaces", "--cache-size=0")
    host.write("/etc/restart-dns", RESTART)
    host.write("/etc/dnsmasq.conf", MAIN + "cache-size=1000\ndns-forward-max=1000\n")
    host.write(
        "/etc/gfwtools/config.toml",
        f'[dns]\nlayout = "{layout}"\nmanager = "command"\nrestart = ["/usr/bin/env", "sh", "/etc/restart-dns"]\n'
        '[policy.gfwlist]\ngranularity = "host"\nsources = ["/etc/list.txt"]\nupstream = ["127.0.0.1#5301"]\n',
    )
    write_list(host, blocked)
    host.run("sh", "/etc/restart-dns")
    host.gfwtools("update", "--reload")


def write_list(host: FreshHost, blocked: list[str]) -> None:
    host.write("/etc/list.txt", "[AutoProxy 0.2.9]\n" + "".join(f"||{name}\n" for name in blocked))


def questions(kind: str, blocked: list[str], count: int) -> str:
    """Names that nobody has asked for before."""
    if kind == "free":
        return "".join(f"n{number}.free{number % 997}.example A\n" for number in range(count))
    return "".join(f"n{number}.{blocked[number % len(blocked)]} A\n" for number in range(count))


def rate(host: FreshHost, text: str) -> float:
    """Uncached queries a second."""
    host.write("/run/questions", text)
    command = f"dnsperf -s 127.0.0.1 -d /run/questions -l {SECONDS} -c 8 -q 100"
    match = re.search(r"Queries per second:\s+([\d.]+)", host.run(*command.split()).stdout)
    assert match
    return float(match[1])


def busiest(host: FreshHost) -> float:
    """CPU seconds that the busier of the host's dnsmasqs has used so far (proc(5), stat)."""
    used = []
    for file in ("/run/dnsmasq/dnsmasq.pid", "/run/gfwtools/dns-gfwlist.pid"):
        pid = host.run("cat", file, code=None).stdout.strip()
        if pid:
            user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
            used.append((int(user) + int(system)) / os.sysconf("SC_CLK_TCK"))
    return max(used)


def lost(host: FreshHost, blocked: list[str]) -> tuple[int, int]:
    """Queries lost of 10,000 at 2,000 a second, while ten updates, each with another list, are reloaded."""
    host.write("/run/questions", questions("free", blocked, 5_000) + questions("blocked", blocked, 5_000))
    updates = 0

    def update() -> None:
        nonlocal updates
        for number in range(10):
            write_list(host, [*blocked[number:], f"new{number}.example"])
            host.gfwtools("update", "--reload")
            updates += 1

    thread = threading.Thread(target=update)
    thread.start()
    sent = missing = 0
    while thread.is_alive() or sent < 10_000:
        output = host.run(
            "dnsperf", "-s", "127.0.0.1", "-d", "/run/questions", "-n", "1", "-Q", "2000", "-t", "2"
        ).stdout
        sent += int(re.search(r"Queries sent:\s+(\d+)", output)[1])  # type: ignore[index]
        missing += int(re.search(r"Queries lost:\s+(\d+)", output)[1])  # type: ignore[index]
        if sent >= 40_000:
            break
    thread.join()
    assert updates == 10
    return missing, sent


def reload_time(count: int) -> tuple[float, float]:
    """Seconds in which dnsmasq answers nobody: SIGHUP after a servers-file of ``count`` entries was shuffled, the worst
    that an update can do to it, and a restart."""
    lines = [f"server=/d{number}.example/127.0.0.1#5354\n" for number in range(count)]
    with FreshHost() as host:
        host.write("/etc/servers", "".join(lines))
        base = f"{MAIN.replace('conf-dir=/etc/dnsmasq.d/,*.conf', '')}pid-file=/run/dnsmasq/dnsmasq.pid\n"
        host.write("/etc/dnsmasq.conf", base + "servers-file=/etc/servers\n")
        host.write("/etc/inline.conf", base + "conf-file=/etc/servers\n")
        host.run("dnsmasq", "--conf-file=/etc/dnsmasq.conf")
        host.wait_for_dns()
        random.Random(51820).shuffle(lines)
        host.write("/etc/servers", "".join(lines))
        program = (
            "import os, signal, sys, time\n"
            "from gfwtools.dnsmasq.daemon import Daemon\n"
            "daemon, pid = Daemon(), int(open('/run/dnsmasq/dnsmasq.pid').read())\n"
            "daemon.is_up()\n"
            "os.kill(pid, signal.SIGHUP); start = time.perf_counter(); time.sleep(0.01)\n"
            "assert daemon.is_up(60); print(time.perf_counter() - start)\n"
            "start = time.perf_counter(); os.kill(pid, signal.SIGTERM)\n"
            "while os.path.exists('/run/dnsmasq/dnsmasq.pid'): time.sleep(0.001)\n"
            "os.spawnlp(os.P_WAIT, 'dnsmasq', 'dnsmasq', '--conf-file=/etc/inline.conf')\n"
            "assert daemon.wait(60); print(time.perf_counter() - start)\n"
        )
        hup, restart = map(float, host.run(sys.executable, "-c", program).stdout.split())
        return hup, restart


def main() -> None:
    if shutil.which("dnsperf") is None:
        sys.exit("dnsperf is missing; apt-get install dnsperf")
    blocked = names()
    print(f"{len(blocked):,} domains; uncached queries a second\n")
    print("| layout | free names | blocked names | CPU for a blocked name | lost during ten `update --reload` |")
    print("| --- | ---: | ---: | ---: | ---: |")
    with FreshHost() as paired, FreshHost() as split:
        hosts = {"paired": paired, "split": split}
        rates: dict[str, dict[str, list[float]]] = {layout: {"free": [], "blocked": []} for layout in hosts}
        cpu = dict.fromkeys(hosts, 0.0)
        for layout, host in hosts.items():
            prepare(host, layout, blocked)
        # By turns: a machine that others use as well is not as fast a minute later.
        for run, kind in product(range(RUNS), ("free", "blocked")):
            text = questions(kind, blocked, 120_000).replace("\nn", f"\nr{run}n")
            for layout, host in hosts.items():
                before = busiest(host)
                rates[layout][kind].append(rate(host, text))
                if kind == "blocked":
                    cpu[layout] += busiest(host) - before
        for layout, host in hosts.items():
            free, tunnelled = rates[layout]["free"], rates[layout]["blocked"]
            each = cpu[layout] / (sum(tunnelled) * SECONDS)
            missing, sent = lost(host, blocked)
            figures = f"{median(free):,.0f} | {median(tunnelled):,.0f} | {each * 1e6:.0f} µs | {missing:,} of {sent:,}"
            print(f"| {layout} | {figures} |", flush=True)
    for kind in ("free", "blocked"):
        pairs = zip(rates["split"][kind], rates["paired"][kind], strict=True)
        print(f"\nsplit / paired, {kind} names, run by run: {', '.join(f'{a / b:.2f}' for a, b in pairs)}")
    print("\nSeconds without an answer, by the number of entries\n")
    print("| entries | SIGHUP with servers-file | restart with conf-file |")
    print("| ---: | ---: | ---: |")
    for count in (4_300, 8_000, 12_000, 20_000, 40_000):
        hup, restart = reload_time(count)
        print(f"| {count:,} | {hup:.2f} | {restart:.2f} |", flush=True)


if __name__ == "__main__":
    start = time.monotonic()
    main()
    print(f"\n{time.monotonic() - start:.0f} s")

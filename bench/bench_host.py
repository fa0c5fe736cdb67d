"""``make bench-host`` (as root): what a person at the gateway waits for, on a host that is set up whole.

``check domain --live`` and a run of cron in the laboratory of the tests, with today's list beside its own names (4,300
made-up ones where it is not there), and ``warm`` for 4,300 domains against an upstream that answers at once. Whole
processes, medians of five, in all four pairs of backend and layout; all of it within network namespaces.
"""

import base64
import json
import os
import statistics
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPO / "tests" / "e2e"), str(REPO / "bench")]

from bench_dns import names, prepare
from fresh_host import FreshHost
from lab import Lab

TODAY = REPO.parent / "shared" / "data" / "gfwlist-2026-08-06.txt"
RUNS = 5


def seconds(host: FreshHost, *command: str) -> float:
    """The median over the runs, after one that fills the caches."""
    found = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        host.gfwtools(*command)
        found.append(time.perf_counter() - start)
    return statistics.median(found[1:])


def more_rules() -> list[str]:
    """Today's rules, without the header, whose checksum is not one of the whole."""
    if not TODAY.exists():
        return [f"||{name}" for name in names()]
    return [
        line for line in base64.b64decode(TODAY.read_bytes()).decode().splitlines() if line[:1] not in ("", "[", "!")
    ]


def live(backend: str, layout: str) -> tuple[float, float, float, int]:
    """Seconds of ``check domain --live`` and of a run of cron that finds nothing new, with its look at the host and
    without it, on a healthy host; and how many domains its list has."""
    with Lab() as lab:
        lab.configure(backend, layout)
        lab.bootstrap()
        own = lab.gateway.read("/etc/list.txt")
        lab.gateway.write("/etc/list.txt", f"{own}\n" + "".join(f"{rule}\n" for rule in more_rules()))
        lab.gateway.gfwtools("update", "--reload")
        (policy,) = json.loads(lab.gateway.gfwtools("status", "--json").stdout)["policies"]
        looked = seconds(lab.gateway, "check", "domain", "--live", "blocked.example")
        cron, files = (seconds(lab.gateway, "update", *words) for words in (["--reload"], []))
        return looked, cron, files, policy["domains"]


def warm(layout: str) -> tuple[float, str]:
    """Seconds of ``warm --again``, and what came of it."""
    with FreshHost() as host:
        prepare(host, layout, names())
        took = seconds(host, "warm", "--again")
        (found,) = json.loads(host.gfwtools("warm", "--again", "--json").stdout)
    return took, f"{found['answered']:,} of {found['total']:,}, {found['failed']:,} failed"


def main() -> None:
    os.environ["PYTHONDONTWRITEBYTECODE"] = ""  # as it is where it is installed: compiled once
    print("| backend, layout | domains | `check domain --live` | unchanged `update --reload` | unchanged `update` |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for backend in ("iptables", "nftables"):
        for layout in ("paired", "split"):
            took, cron, files, domains = live(backend, layout)
            row = f"| {backend}, {layout} | {domains:,} | {took:.2f} s | {cron:.2f} s | {files:.2f} s |"
            print(row, flush=True)
    print("\n| layout | `warm --again` | names answered |")
    print("| --- | ---: | ---: |")
    for layout in ("paired", "split"):
        took, words = warm(layout)
        print(f"| {layout} | {took:.1f} s | {words} |", flush=True)


if __name__ == "__main__":
    main()

"""Is a start slower than it was? Runs two checkouts by turns and compares their CPU time.

    python bench/turns.py OLD [NEW] [--pairs 31] [--list FILE]

OLD and NEW (default: this one) are folders of a checkout with its .venv (``make .venv/.installed``). Each gets a root
of its own with the same list, and an update before the first turn. A pair is one run of each, in alternating order, so
that what else the machine does falls on both. The figure is the median of the pairs' ratios of user and system time.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HERE / "tests"))

from paths import REAL_LISTS

#: What everybody runs often.
COMMANDS = (("--help",), ("check", "domain", "google.com"), ("update",))


def cpu(argv: list[str]) -> float:
    """User and system time of a program, in seconds."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    program = subprocess.Popen(argv, stdout=subprocess.DEVNULL, env=environment)
    _, status, usage = os.wait4(program.pid, 0)
    program.returncode = os.waitstatus_to_exitcode(status)
    if program.returncode:
        sys.exit(f"{' '.join(argv)}: exit code {program.returncode}")
    return usage.ru_utime + usage.ru_stime


def start(checkout: Path, root: Path) -> list[str]:
    return [str(checkout / ".venv/bin/python"), "-m", "gfwtools", "--root", str(root)]


def prepare(checkout: Path, root: Path, source: Path) -> list[str]:
    """A root that has had its update; returns the words that every command begins with."""
    folder = root / "etc/gfwtools"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(f'[policy.gfwlist]\nsources = ["{source}"]\n')
    words = start(checkout, root)
    subprocess.run([*words, "-q", "update"], check=True)
    return words


def by_turns(old: list[str], new: list[str], pairs: int) -> tuple[float, float, float]:
    """The median of the ratios new to old, and the medians of both."""
    times: dict[str, list[float]] = {"old": [], "new": []}
    for turn in range(pairs + 1):
        both = [("old", old), ("new", new)]
        for which, argv in both if turn % 2 else reversed(both):
            times[which].append(cpu(argv))
    before, after = times["old"][1:], times["new"][1:]  # the first pair reads files that no cache has yet
    ratios = [mine / theirs for theirs, mine in zip(before, after, strict=True)]
    return statistics.median(ratios), statistics.median(before), statistics.median(after)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the CPU time of two checkouts by turns.")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="?", default=HERE)
    parser.add_argument("--pairs", type=int, default=31)
    parser.add_argument("--list", type=Path, help="the list  [default: the newest of the real ones, or the tests' own]")
    given = parser.parse_args()
    source = given.list or max(REAL_LISTS.glob("gfwlist-*.txt"), default=HERE / "tests/fixtures/list.txt")
    with tempfile.TemporaryDirectory() as folder:
        old = prepare(given.old.resolve(), Path(folder, "old"), source.resolve())
        new = prepare(given.new.resolve(), Path(folder, "new"), source.resolve())
        print("| command | new : old | old | new |\n| --- | ---: | ---: | ---: |")
        for words in COMMANDS:
            ratio, before, after = by_turns([*old, *words], [*new, *words], given.pairs)
            print(f"| `{' '.join(words)}` | {ratio:.3f} | {before * 1000:.1f} ms | {after * 1000:.1f} ms |", flush=True)


if __name__ == "__main__":
    main()

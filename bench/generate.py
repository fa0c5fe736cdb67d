"""``python bench/generate.py COUNT > list.txt``: a list of COUNT rules, always the same one for the same count.

The names are those of dnsmasq-china-list where it lies beside the repo, else made up; subdomains, exceptions, wildcards
and duplicates are mixed in, in about the shares that real lists have.
"""

import random
import sys
from pathlib import Path

CHINA = Path(__file__).resolve().parents[2] / "shared" / "data" / "accelerated-domains.china.conf"
WORDS = ("alpha", "breeze", "cloud", "delta", "ember", "fox", "garden", "harbor", "iris", "jade", "kite", "lotus")
TOPS = ("com", "net", "org", "cn", "com.cn", "io", "co.uk", "github.io", "de", "jp")


def names() -> list[str]:
    """Base domains, without an end to their number where they are made up."""
    if CHINA.exists():
        return [line.split("/")[1] for line in CHINA.read_text().splitlines() if line.startswith("server=/")]
    maker = random.Random(1)
    return [f"{maker.choice(WORDS)}-{number}.{maker.choice(TOPS)}" for number in range(110_000)]


def rules(count: int) -> list[str]:
    """``count`` rules in AutoProxy syntax."""
    chosen = random.Random(51820)
    base = names()
    lines = []
    for number in range(count):
        name = base[number % len(base)]
        if number >= len(base):  # a further round: hosts of their own
            name = f"h{number // len(base)}x{chosen.randrange(10)}.{name}"
        kind = chosen.random()
        if kind < 0.80:
            lines.append(f"||{name}")
        elif kind < 0.86:
            lines.append(f"||www.{name}")
        elif kind < 0.90:
            lines.append(f"|http://{name}/path")
        elif kind < 0.92:
            lines.append(f".{name}")
        elif kind < 0.94:
            lines.append(f"||cdn*.{name}")
        elif kind < 0.96:
            lines.append(f"@@||direct.{name}")
        else:
            lines.append(f"||{chosen.choice(base)}")
    return lines


def main() -> None:
    count = int(sys.argv[1])
    print("[AutoProxy 0.2.9]", "! Last Modified: Thu, 06 Aug 2026 08:35:22 +0000", *rules(count), sep="\n")


if __name__ == "__main__":
    main()

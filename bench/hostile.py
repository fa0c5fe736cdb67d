"""Lists that are made to take memory and time: ``python bench/hostile.py SHAPE BYTES FILE`` writes one.

Each is as large as fetch.max_bytes lets it be, or as the bounds of gfwtools/lists/budget.py do. ``make bench`` measures
what an update with each takes; whoever finds a worse one adds it here.
"""

import base64
import gzip
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

__all__ = ["FORMATS", "SHAPES", "write"]

A_MILLION = 1_000_000
Shape = Callable[[int], bytes]


def filled(make: Callable[[int], str], size: int, most: int = A_MILLION) -> bytes:
    """The lines ``make(0)``, ``make(1)``, ... up to ``size`` bytes and ``most`` lines."""
    lines, total = [], 0
    for number in range(most):
        line = make(number).encode()
        total += len(line) + 1
        if total > size:
            break
        lines.append(line)
    return b"\n".join(lines) + b"\n"


def _lines(make: Callable[[int], str], most: int = A_MILLION) -> Shape:
    return partial(filled, make, most=most)


def _repeated(text: str, before: str = "") -> Shape:
    return lambda size: (before + text * ((size - len(before)) // len(text.encode()))).encode()


def _packed(shape: Shape) -> Shape:
    return lambda size: base64.encodebytes(shape(size * 74 // 100))


def _several(*shapes: Shape) -> Shape:
    return lambda size: b"".join(shape(size // len(shapes)) for shape in shapes)


def _holes(size: int) -> bytes:
    return b"||12.0.0.0/8\n" + filled(
        lambda n: f"@@||12.{n // 128 // 256 % 256}.{n // 128 % 256}.{n % 128 * 2}", size, 32_000
    )


_plain = _lines(lambda n: f"||sitesitesite{n:06}.com")
_short = _lines(lambda n: f"||site{n}.com")
_dear = _lines(lambda n: f"||a*.b{n}.com", 70_000)
_google = _lines(lambda n: f"||x{n}.google.*", 1000)
_networks = _lines(lambda n: f"||{n // 65536 % 90 + 11}.{n // 256 % 256}.{n % 256}.1", 32_000)

SHAPES: dict[str, Shape] = {
    # What is accepted.
    "a million rules": _short,
    "the longest million": _plain,
    "the same in base64": _packed(_short),
    "a million widened": _lines(lambda n: f"||www.site{n}.com"),
    "a million in capitals": _lines(lambda n: f"||SITE{n}.COM"),
    "a million URLs": _lines(lambda n: f"|http://u{n}.com/p"),
    "one character of four bytes": lambda size: "! \U0001f600\n".encode() + _short(size - 100),
    "names of 120 labels": _lines(lambda n: f"||{n:x}." + "a." * 118 + "com"),
    "exceptions of 115 labels": _lines(lambda n: ("@@" if n % 2 else "") + f"||{n // 2:x}." + "a." * 115 + "com"),
    "a million exceptions": lambda size: (
        b"||example.com\n||a.com\n||b.com\n"
        + filled(lambda n: f"@@||e{n}.example.com" if n % 4 else f"||s{n}.com", size - 100, A_MILLION - 10)
    ),
    "a million freed below": lambda size: (
        b"||example.com\n" + filled(lambda n: f"@@||*.e{n}.example.com", size - 100, A_MILLION - 10)
    ),
    "blocks under exceptions": lambda size: (
        b"@@||com\n" + filled(lambda n: f"||a.site{n}.com", size - 10, A_MILLION - 10)
    ),
    "several rules a line": _lines(lambda n: " ".join(f"||{n}x{m}.com" for m in range(250))),
    "addresses": _several(_networks, _lines(lambda n: f"||site{n}.com", A_MILLION - 40_000)),
    "holes in a network": _holes,
    "wildcards": _dear,
    "google.*": _several(_google, _lines(lambda n: f"||site{n}.com", A_MILLION - 2000)),
    "some of each": lambda size: b"".join(
        [
            *(shape(size) for shape in (_google, _networks)),
            filled(lambda n: f"||a*.b{n}.com", size, 60_000),
            filled(lambda n: f"||site{n}.com", size, 880_000),
        ]
    ),
    "expressions": _lines(lambda n: rf"/^https?:\/\/([^\/]+\.)*s{n}\.com/", 60_000),
    "other scripts": _lines(lambda n: f"||例{n}子.com", 60_000),
    "a million hosts": _lines(lambda n: f"0 site{n}.com"),
    "a million hosts on long lines": _lines(lambda n: "0 " + " ".join(f"s{n}x{m}.com" for m in range(250))),
    "a million lines of dnsmasq": _lines(lambda n: f"server=/s{n}.com/1"),
    "a million domains": _lines(lambda n: f"site{n}.com"),
    # What is dropped or refused.
    "one line": _repeated("a.", "||"),
    "one line of base64": _repeated("QUFB"),
    "base64 in words": _repeated("QUE "),
    "carriage returns": _repeated("a.\r", "\n"),
    "base64 of base64": lambda size: base64.b64encode(base64.b64encode(b"||a.com\n" * (size * 9 // 16 // 8))),
    "tiny rules": _repeated("a\n"),
    "a million tiny rules": _lines(lambda n: f"w{n}"),
    "tiny rules and some names": _lines(lambda n: f"||s{n}.com" if n % 9 == 0 else f"w{n}"),
    "blank lines": _repeated("\n"),
    "lines of 4,000 characters": _lines(lambda n: "||" + "-" * 3990 + str(n)),
    "words": _lines(lambda n: "a " * 2000 + str(n)),
    "brackets": _lines(lambda n: "[1" * 1400 + str(n)),
    "dots": _lines(lambda n: "||" + "." * 4000 + str(n)),
    "stars": _lines(lambda n: "*" * 4000 + str(n)),
    "slashes": _lines(lambda n: "/" + "a\\." * 1020 + f"{n}/"),
    "labels with stars": _lines(lambda n: "||" + ".".join(["a*"] * 100) + f".b{n}.com"),
    "UTF-16": lambda size: _short(size // 2).decode().encode("utf-16"),
    "a gzip file": lambda size: gzip.compress(_repeated("a.", "||")(40 * size)),
}
#: The formats of those that are in another one than AutoProxy's.
FORMATS = {
    "a million hosts": "hosts",
    "a million hosts on long lines": "hosts",
    "a million lines of dnsmasq": "dnsmasq",
    "a million domains": "domains",
}


def write(shape: str, size: int, path: Path) -> None:
    path.write_bytes(SHAPES[shape](size)[: size if shape != "a gzip file" else None])


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

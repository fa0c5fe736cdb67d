"""What the tests in network namespaces need; where it lacks, they fail and say what to install."""

import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest

#: Program -> the Debian package that has it.
PACKAGES = {
    "dnsmasq": "dnsmasq-base",
    "ip": "iproute2",
    "ipset": "ipset",
    "iptables": "iptables",
    "mount": "mount",
    "nft": "nftables",
    "nsenter": "util-linux",
    "ping": "iputils-ping",
    "sysctl": "procps",
    "wg": "wireguard-tools",
    "wireguard-go": "wireguard-go",
}
BACKENDS, LAYOUTS = frozenset({"iptables", "nftables"}), frozenset({"paired", "split"})
#: What `make test` runs of the pairs of backend and layout; `make test-variants` has the others. These modules have both
#: backends there, each with one layout, because a mistake in one of them would leak;
BOTH_BACKENDS = frozenset({"test_bootstrap", "test_golden_scripts", "test_hostile_answers", "test_second_leg"})
USUAL_LAYOUT = {"iptables": "paired", "nftables": "split"}
#: these have nftables, and all others have iptables.
WITH_NFTABLES = frozenset(
    {
        "test_beside_teardown",
        "test_cron_repairs",
        "test_deny",
        "test_empty_run",
        "test_from_the_lan",
        "test_full_set",
        "test_half_done",
        "test_interrupted_twice",
        "test_looks_blocked",
        "test_own_lines",
        "test_running_connections",
        "test_units",
    }
)
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")


def lacking(uid: int, has: Callable[[str], bool], tun: Path = Path("/dev/net/tun")) -> list[str]:
    """What is not there, each with its remedy; nothing where the lab can be built."""
    found = [] if uid == 0 else ["not root: network namespaces need it; run the tests with sudo"]
    packages = sorted({package for program, package in PACKAGES.items() if not has(program)})
    if packages:
        found.append(f"programs are missing: apt-get install {' '.join(packages)}")
    if not tun.exists():
        found.append(f"no {tun}: wireguard-go needs it; modprobe tun")
    return found


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark what `make test-variants` runs."""
    tests: dict[str, list[tuple[pytest.Item, frozenset[str]]]] = defaultdict(list)
    for item in items:
        tests[item.nodeid.partition("[")[0]].append((item, _words(item)))
    for found in tests.values():
        module = found[0][0].path.stem
        backend = "nftables" if module in WITH_NFTABLES else "iptables"
        backends = BACKENDS if module in BOTH_BACKENDS else {backend}
        _leave(found, lambda words, ours=frozenset(backends): words & ours, BACKENDS)
        _leave(found, lambda words: any({b, USUAL_LAYOUT[b]} <= words for b in BACKENDS), LAYOUTS)


def _words(item: pytest.Item) -> frozenset[str]:
    """The values of its parameters that are texts."""
    params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
    values = [word for value in params.values() for word in (value if isinstance(value, tuple) else (value,))]
    return frozenset(word for word in values if isinstance(word, str))


def _leave(
    items: Iterable[tuple[pytest.Item, frozenset[str]]],
    is_ours: Callable[[frozenset[str]], object],
    among: frozenset[str],
) -> None:
    """Mark the items with a word ``among`` those that are not ours, where there are some that are."""
    concerned = [(item, bool(is_ours(words))) for item, words in items if words & among]
    if any(ours for _, ours in concerned):
        for item, ours in concerned:
            if not ours:
                item.add_marker(pytest.mark.variant)


@pytest.fixture(scope="session", autouse=True)
def _everything_is_there() -> None:
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN))
    complaints = lacking(os.geteuid(), lambda program: shutil.which(program, path=path) is not None)
    if complaints:
        pytest.fail("; ".join(complaints), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _a_polite_kill_tears_the_lab_down() -> Iterator[None]:
    """``timeout pytest ...`` sends SIGTERM, of which Python dies on the spot, and the namespaces would stay."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = None
    with suppress(ValueError):  # not the main thread
        before = signal.signal(signal.SIGTERM, interrupt)
    yield
    if before is not None:
        signal.signal(signal.SIGTERM, before)

"""What the tests in network namespaces need; where it lacks, they fail and say what to install."""

import itertools
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
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
#: What `make test` leaves to `make test-variants`: where a test has all four pairs of backend and layout, these two,
OTHER_PAIRS = frozenset({("iptables", "split"), ("nftables", "paired")})
#: and of long modules with both backends, one of them.
OTHER_BACKENDS = {
    "test_bootstrap_fails": "nftables",
    "test_firewalls": "nftables",
    "test_from_the_lan": "iptables",
    "test_lan_is_kept_out": "nftables",
    "test_not_allowed": "nftables",
    "test_running_connections": "iptables",
}
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
    pairs: dict[str, dict[pytest.Item, tuple[str, str]]] = defaultdict(dict)
    for item in items:
        params = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        if params.get("backend", params.get("lab")) == OTHER_BACKENDS.get(item.path.stem, ""):
            item.add_marker(pytest.mark.variant)
        values = [word for value in params.values() for word in (value if isinstance(value, tuple) else (value,))]
        words = {word for word in values if isinstance(word, str)}
        for pair in itertools.product(BACKENDS & words, LAYOUTS & words):
            pairs[item.nodeid.partition("[")[0]][item] = pair
    for found in pairs.values():
        if len(set(found.values())) == 4:
            for item, pair in found.items():
                if pair in OTHER_PAIRS:
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

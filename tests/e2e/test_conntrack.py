"""The kernel's connections over netlink, both families."""

import sys
from collections.abc import Iterator

import pytest
from fresh_host import FreshHost

pytestmark = pytest.mark.e2e

#: conntrack looks at packets where a rule asks for it.
RULES = "table inet looks { chain out { type filter hook output priority 0; udp dport 9 ct mark set 0x5000042; }; }"
FORGET = """
import socket, sys
from ipaddress import ip_address
from gfwtools.system.conntrack import forget
{before}
print(forget(lambda found: {which}, unanswered={unanswered}), forget(lambda found: {which}, unanswered={unanswered}))
"""
SEND = """
for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
    for port in (9, 10):
        with socket.socket(family, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", (host, port))
    server, client = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    server.bind((host, 0))
    client.sendto(b"", server.getsockname())
    server.sendto(b"", server.recvfrom(1)[1])
"""


@pytest.fixture
def host() -> Iterator[FreshHost]:
    with FreshHost() as host:
        host.run("nft", "-f", "-", stdin=RULES)
        yield host


@pytest.mark.parametrize(
    ("which", "unanswered", "removed"),
    [
        ("True", False, 6),
        ("True", True, 4),
        ("found.answered", False, 2),
        ("found.mark == 0x5000042", False, 2),
        ('found.destination == ip_address("::1")', False, 3),
        ('found.answers_to == ip_address("127.0.0.1") and found.protocol == 17', False, 3),
        ("found.protocol == 6", False, 0),
    ],
)
def test_what_is_asked_for_is_removed_and_nothing_else(
    host: FreshHost, which: str, unanswered: bool, removed: int
) -> None:
    script = FORGET.format(before=SEND, which=which, unanswered=unanswered)
    assert host.run(sys.executable, "-c", script).stdout.split() == [str(removed), "0"]


def test_a_mark_is_set_in_the_bits_of_the_mask_alone(host: FreshHost) -> None:
    script = (
        f"import socket\nfrom gfwtools.system.conntrack import forget, mark\n{SEND}"
        "print(mark(lambda found: (0x2000000, 0xf000000) if found.mark else None))\n"
        "print(forget(lambda found: found.mark == 0x2000042))\n"
    )
    assert host.run(sys.executable, "-c", script).stdout.split() == ["2", "2"]


def test_without_the_right_to_see_them_the_error_says_what_is_missing(host: FreshHost) -> None:
    script = FORGET.format(before="", which="True", unanswered=False)
    done = host.run("setpriv", "--bounding-set=-net_admin", "--", sys.executable, "-c", script, code=1)
    assert "the kernel's connections cannot be seen: Operation not permitted" in done.stderr

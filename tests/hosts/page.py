"""docs/tested-hosts.md, from the reports of a run of `make test-hosts`."""

import textwrap
from collections.abc import Mapping

from events import events_of
from kinds import HOSTS, Host

__all__ = ["text"]

_HEAD = """# Tested hosts

`make test-hosts` writes this page. It boots real Debian hosts with systemd as PID 1, in namespaces: an ISP with DHCP,
the far end of a tunnel and a client of the LAN are beside each host. [development.md](development.md) says how to run
it.

After each event a blocked name must go through the tunnel, free names must resolve and open, and the ISP must have seen
no packet of a blocked site and no question about one; the client of the LAN opens blocked sites all the time. `gfwtools
check host` must agree. After `teardown` the host must be as before: /etc, rules, routes, sets, kernel parameters and
units are compared.

"""


def text(outcomes: Mapping[str, Mapping[str, str]], before: str = "") -> str:
    """The page.

    :param outcomes: of each host by its name, its events and how each ended: passed, failed or skipped
    :param before: the page as it was: a host that did not run keeps its row
    """
    rows = ["| host | network | resolver | firewall | backend, layout | events | result |", "| --- " * 7 + "|"]
    kept = before.splitlines()
    for host in HOSTS:
        start = f"| {' | '.join(_cells(host))} |"
        old = next((line for line in kept if line.startswith(start)), f"{start} | not run |")
        rows.append(f"{start} {_result(outcomes[host.name])} |" if host.name in outcomes else old)
    return _HEAD + "\n".join(rows) + "\n\n" + _events() + _again()


def _cells(host: Host) -> tuple[str, ...]:
    network, _ = host.parts
    where = "container" if host.container else "machine"
    return (
        f"{host.suite}, {where}",
        network.network,
        network.resolver,
        host.firewall,
        f"{host.backend}, {host.layout}",
    )


def _result(events: Mapping[str, str]) -> str:
    failed = [name for name, outcome in events.items() if outcome == "failed"]
    passed = sum(outcome == "passed" for outcome in events.values())
    if not passed:
        return " | not run"
    return f"{passed} of {len(events)} | {'failed: ' + ', '.join(failed) if failed else 'passed'}"


def _events() -> str:
    names = list(dict.fromkeys(event.name for host in HOSTS for event in events_of(host)))
    shared = [name for name in names if not name.startswith("restart ")]
    restarted = [f"`{name.removeprefix('restart ')}`" for name in names if name.startswith("restart ")]
    words = (
        f"Events of every host, in this order: {', '.join(shared)}. Before another lease, each of these services is "
        f"restarted where the host has it: {', '.join(restarted)}. A power cut is SIGKILL of the whole host at a random "
        "moment; `GFWTOOLS_HOSTS_SEED` chooses other moments."
    )
    return textwrap.fill(words, 118, break_on_hyphens=False) + "\n\n"


def _again() -> str:
    return (
        "```\n"
        "# make test-hosts                        all of them\n"
        "# make test-hosts HOSTS=bookworm-nm      those whose names begin so: suite-network-firewall-backend-layout\n"
        "```\n"
    )

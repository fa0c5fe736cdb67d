"""docs/tested-hosts.md, from the reports of a run of `make test-hosts`."""

from collections.abc import Mapping, Sequence

from kinds import HOSTS, Host
from paths import REPO

__all__ = ["PAGE", "text"]

PAGE = REPO / "docs" / "tested-hosts.md"

_HEAD = """# Tested hosts

`make test-hosts` writes this page. It boots real Debian hosts with systemd as PID 1, in namespaces: an ISP with DHCP,
the far end of a tunnel and a client of the LAN are beside each host. [development.md](development.md) says how to run
it.

After each event a blocked name must go through the tunnel, free names must resolve and open, and the ISP must have seen
no packet of a blocked site and no question about one; the client of the LAN opens blocked sites all the time. `gfwtools
check host` must agree. After `teardown` the host must be as before: /etc, rules, routes, sets, kernel parameters and
units are compared.

"""


def text(outcomes: Mapping[str, Mapping[str, str]]) -> str:
    """:param outcomes: of each host by its name, its events and how each ended: passed, failed or skipped"""
    rows = ["| host | network | resolver | firewall | backend, layout | events | result |", "| --- " * 7 + "|"]
    rows += [_row(host, outcomes.get(host.name, {})) for host in HOSTS]
    return _HEAD + "\n".join(rows) + "\n\n" + _events(outcomes) + _again()


def _row(host: Host, events: Mapping[str, str]) -> str:
    network, _ = host.parts
    where = "container" if host.container else "machine"
    failed = [name for name, outcome in events.items() if outcome == "failed"]
    passed = sum(outcome == "passed" for outcome in events.values())
    result = "not run"
    if passed:
        result = f"failed: {', '.join(failed)}" if failed else "passed"
    cells = (
        f"{host.suite}, {where}",
        network.network,
        network.resolver,
        host.firewall,
        f"{host.backend}, {host.layout}",
        f"{passed} of {len(events)}",
        result,
    )
    return f"| {' | '.join(cells)} |"


def _events(outcomes: Mapping[str, Mapping[str, str]]) -> str:
    names: Sequence[str] = list(dict.fromkeys(name for events in outcomes.values() for name in events))
    shared = [name for name in names if not name.startswith("restart ")]
    restarted = [f"`{name.removeprefix('restart ')}`" for name in names if name.startswith("restart ")]
    return (
        f"Events of every host, in this order: {', '.join(shared)}. Before another lease, each of these services is "
        f"restarted where the host has it: {', '.join(restarted)}. A power cut is SIGKILL of the whole host at a random "
        "moment; `GFWTOOLS_HOSTS_SEED` chooses other moments.\n\n"
    )


def _again() -> str:
    return (
        "```\n# make test-hosts                                   all of them\n"
        f"# make test-hosts HOSTS={HOSTS[0].network:<27} those with this in their name\n```\n"
    )

"""How an address is handled: which sets hold it, which names led to it, and which way its packets take."""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from gfwtools.config.model import Address, Config, PolicyConfig
from gfwtools.dnsmasq import conf
from gfwtools.errors import HostError
from gfwtools.plumbing.backend import direct_sets_with, sets_with, working_backend
from gfwtools.plumbing.facts import families_of
from gfwtools.system import questions
from gfwtools.system.commands import Runner
from gfwtools.system.questions import Way

__all__ = ["AddressReport", "names_of", "parse_address", "report"]

#: Bytes of the end of dnsmasq's log that are read.
LOG_TAIL = 16 * 1024 * 1024
#: dnsmasq's lines with ``log-queries``: "reply NAME is ADDRESS". Its "ipset add" names the rule's domain, not the host.
_ANSWER = re.compile(r"\b(?:reply|cached) (\S+) is ([0-9a-fA-F.:]+)$")


@dataclass(frozen=True, slots=True)
class AddressReport:
    """An address on this host."""

    address: Address
    policy: PolicyConfig | None
    """The one that marks it."""
    sets: tuple[str, ...]
    direct_sets: tuple[str, ...]
    """Those that nothing marks: it belongs to an exception."""
    names: tuple[str, ...]
    sources: tuple[str, ...]
    """Where the names were looked for."""
    way: Way
    carried: bool = True
    """False where the address is marked and the tunnel carries no address of its family: it is refused, as intended."""

    @property
    def mark(self) -> int | None:
        return self.policy.mark if self.policy else None

    @property
    def well(self) -> bool:
        """It goes where its sets say."""
        return self.policy is None or self.way.device == self.policy.interface or not self.carried

    def to_json(self) -> dict[str, Any]:
        """The object that ``check ip --json`` prints."""
        return {
            "address": str(self.address),
            "policy": self.policy.name if self.policy else None,
            "sets": list(self.sets),
            "direct_sets": list(self.direct_sets),
            "names": list(self.names),
            "mark": self.mark,
            "device": self.way.device,
            "source": self.way.source,
            "gateway": self.way.gateway,
            "error": self.way.error or None,
            "ok": self.well,
        }


def parse_address(text: str) -> Address:
    """One address, without a scope or a length.

    :raises ValueError: the text is not an address; the message says what to use.
    """
    try:
        if "%" in text:
            raise ValueError
        return ip_address(text.strip().removeprefix("[").removesuffix("]"))
    except ValueError:
        hint = " but a network" if "/" in text else ""
        raise ValueError(
            f"{text[:60]!r} is not an address{hint}; use one such as 198.51.100.7 or 2001:db8::7"
        ) from None


def report(addresses: Iterable[Address], config: Config, runner: Runner) -> Iterator[AddressReport]:
    """Look at each address.

    :raises ValueError: one is of a family that this host does not have.
    :raises HostError: a tool is missing.
    """
    listed = list(addresses)
    if not runner.has("ip"):
        raise HostError("ip: no such program", "install iproute2")
    families = families_of(runner)
    for address in listed:
        if address.version not in families:
            raise ValueError(f"{address} is IPv{address.version}, which this host does not have")
    backend = working_backend(config, runner)
    sources = _sources(config)
    names = names_of(listed, sources)
    for address in listed:
        policy, sets = None, list[str]()
        for candidate in config.policies:
            held = sets_with(runner, backend, candidate, address)
            policy = policy or (candidate if held else None)  # the first one marks it
            sets += held
        direct = [name for p in config.policies for name in direct_sets_with(runner, backend, p, address)]
        way = questions.route(runner, address, policy.mark if policy else 0)
        yield AddressReport(
            address=address,
            policy=policy,
            sets=tuple(sets),
            direct_sets=tuple(direct),
            names=tuple(names[address]),
            sources=tuple(f"/{source.relative_to(config.root)}" for source in sources),
            way=way,
            carried=policy is None or _carries(runner, policy.interface, address.version),
        )


def _carries(runner: Runner, interface: str, family: int) -> bool:
    """Has the interface an address of this family? One that is missing should have."""
    text = runner.ask("ip", "-j", "address", "show", "dev", interface, "scope", "global")
    infos = [info for link in json.loads(text or "[]") for info in link.get("addr_info", ())]
    wanted = "inet" if family == 4 else "inet6"
    return family == 4 or any(info.get("family") == wanted for info in infos)


# ---------------------------------------------------------------- names


def _sources(config: Config) -> list[Path]:
    """The warm-up's files, and dnsmasq's log where it writes one of its own."""
    found = [path for policy in config.policies if (path := config.paths.warm(policy.name)).is_file()]
    # The policies' files have no such line, and may have a million others.
    ours = {f"{policy.name}.conf" for policy in config.policies}
    for _, log in conf.read(config, skip=ours, only=("log-facility",)).directives:
        if log.startswith("/") and config.paths.at(log).is_file():
            found.append(config.paths.at(log))
    return found


def names_of(addresses: Iterable[Address], sources: Iterable[Path]) -> dict[Address, list[str]]:
    """Which names have led to each address, by the files of :func:`report`; a file that cannot be read has none."""
    found: dict[Address, dict[str, None]] = {address: {} for address in addresses}
    for source in sources:
        for name, text in _warm_names(source) if source.suffix == ".json" else _logged_names(source):
            try:
                address = ip_address(text)
            except ValueError:
                continue
            if address in found:
                found[address][name] = None
    return {address: sorted(names) for address, names in found.items()}


def _warm_names(path: Path) -> Iterator[tuple[str, str]]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return
    for name, addresses in document.items() if isinstance(document, dict) else ():
        for address in addresses if isinstance(addresses, list) else ():
            yield name, str(address)


def _logged_names(path: Path) -> Iterator[tuple[str, str]]:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL))
            text = file.read(LOG_TAIL).decode("utf-8", "replace")
    except OSError:
        return
    for line in text.splitlines():
        answer = _ANSWER.search(line)
        if answer:
            yield answer[1], answer[2]

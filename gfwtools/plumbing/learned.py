"""The addresses that dnsmasq has learned, in files with one a line, the same for both backends.

Clients hold answers in caches of their own: without this, a blocked site that was just resolved would be tried directly
until its answer has expired. One file is kept between ``down`` and ``up``. The other one is noted while the plumbing is
up, for a power cut and for a program that flushes all sets: it counts where the sets have nothing that was learned.
"""

from collections.abc import Collection, Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from gfwtools.config.model import Address, Config, Paths, PolicyConfig
from gfwtools.storage import atomic

__all__ = ["MOST", "drop", "forget", "forget_noted", "load", "note", "noted", "path", "save"]

#: This many of a set are kept, and restored when ``down`` fails; what a household learns in a year is less. A set that
#: was filled on purpose must not make ``down`` slow or its files large.
MOST = 65_536


def path(paths: Paths, policy: str) -> Path:
    return paths.state_dir / f"{policy}.learned"


def save(config: Config, learned: Mapping[str, tuple[Address, ...]]) -> None:
    """Write the addresses of each policy (policy's name -> addresses); a policy without any gets no file.

    :raises StoreError: one of the files cannot be written.
    """
    atomic.write_all(
        {
            path(config.paths, policy): "".join(f"{address}\n" for address in addresses).encode()
            for policy, addresses in learned.items()
            if addresses
        }
    )


def note(config: Config, learned: Mapping[str, tuple[Address, ...]]) -> None:
    """Write the addresses that are in the sets now. Without any, the last note stays.

    :raises StoreError: one of the files cannot be written.
    """
    atomic.write_all(
        {
            _note(config.paths, policy): "".join(f"{address}\n" for address in sorted(addresses, key=str)).encode()
            for policy, addresses in learned.items()
            if addresses
        }
    )


def noted(config: Config, policy: PolicyConfig) -> tuple[Address, ...]:
    """What :func:`note` wrote last.

    :raises StoreError: the file cannot be read.
    """
    return _addresses(_note(config.paths, policy.name))


def _note(paths: Paths, policy: str) -> Path:
    return paths.state_dir / f"{policy}.noted"


def load(config: Config) -> dict[str, tuple[Address, ...]]:
    """Policy's name -> the addresses that :func:`save` wrote. A line that is not an address is skipped.

    :raises StoreError: one of the files cannot be read.
    """
    return {policy.name: _addresses(path(config.paths, policy.name)) for policy in config.policies}


def drop(config: Config, policy: PolicyConfig, addresses: Collection[Address]) -> None:
    """Take addresses out of a policy's files, where there are any.

    :raises StoreError: it cannot be read or written.
    """
    saved = _addresses(path(config.paths, policy.name))
    kept = tuple(address for address in saved if address not in addresses)
    if kept != saved:
        forget(config._replace(policies=(policy,)))
        save(config, {policy.name: kept})
    before = noted(config, policy)
    if left := tuple(address for address in before if address not in addresses):
        note(config, {policy.name: left})
    elif before:
        atomic.remove([_note(config.paths, policy.name)])


def _addresses(file: Path) -> tuple[Address, ...]:
    found = []
    for line in (atomic.read(file) or b"").decode("ascii", "replace").split():
        with suppress(ValueError):
            found.append(ip_address(line))
    return tuple(found)


def forget(config: Config) -> None:
    """Remove the files: what was in them is in the sets again.

    :raises StoreError: one of them cannot be removed.
    """
    atomic.remove(path(config.paths, policy.name) for policy in config.policies)


def forget_noted(config: Config) -> None:
    """:raises StoreError: one of the files cannot be removed."""
    atomic.remove(_note(config.paths, policy.name) for policy in config.policies)

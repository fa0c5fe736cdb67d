"""What on this host belongs to gfwtools, also where the record of it was lost."""

from collections.abc import Collection, Iterator
from pathlib import Path

from gfwtools.config.model import Config, Paths, is_url
from gfwtools.setup import boot, files, resolver_edits, resolver_facts
from gfwtools.setup.resolv_conf_writers import snippet
from gfwtools.storage import atomic
from gfwtools.storage.journal import Journal, Transaction
from gfwtools.storage.state import read_state
from gfwtools.system.commands import Runner

__all__ = ["adopt", "forget_loaded", "generated_files", "lost_words", "possible_files"]


def possible_files(config: Config) -> Iterator[Path]:
    """Every file that an update may write for the policies, in any layout and backend."""
    paths = config.paths
    for policy in config.policies:
        yield config.dnsmasq_conf(policy)
        for place in (paths.servers, paths.second, paths.list, paths.direct, paths.domains, paths.ipset, paths.nft):
            yield place(policy.name)
        yield from (paths.own_list(entry) for entry in (*policy.allow, *policy.deny) if is_url(entry))


def generated_files(config: Config) -> list[str]:
    """Every file that the state names."""
    state = read_state(config.paths.state)
    return [path for policy in state.policies.values() for path in policy.in_place]


def forget_loaded(paths: Paths, transaction: Transaction | None = None, removed: Collection[Path] = ()) -> None:
    """Note that no running program has read our files any more, and that some are ``removed``."""
    state = read_state(paths.state)
    policies = {}
    for name, policy in state.policies.items():
        files = {path: "" if paths.at(path) in removed else written for path, written in policy.files.items()}
        policies[name] = policy._replace(loaded={}, files=files)
    if state.policies != policies:
        data = {paths.state: state._replace(policies=policies).to_json()}
        if transaction:
            transaction.write(data)
        else:
            atomic.write_all(data)


def adopt(config: Config, runner: Runner) -> list[str]:
    """Record our files that the journal does not know, because the state's folder was lost.

    :returns: the files.
    """
    paths = config.paths
    if snippet(config) in files.recorded(paths) or not paths.at(snippet(config)).exists():
        return []  # the journal is whole, or there was no bootstrap
    places = (*resolver_edits.places(config), *boot.places())
    instead = resolver_edits.nameservers_instead(resolver_facts.observe(config, runner))
    return files.adopt(paths, places, instead)


def lost_words(config: Config, found: list[str]) -> str:
    """The message that the originals of the files ``found`` are lost. resolv.conf gets the resolvers of dnsmasq."""
    return f"{Journal(config.paths).folder} was lost, and with it what was before gfwtools at {', '.join(found)}"

"""What on this host is of gfwtools, also where the record of it was lost."""

from collections.abc import Collection, Iterator
from pathlib import Path

from gfwtools.config.model import Config, Paths
from gfwtools.dnsmasq.conf import SNIPPET
from gfwtools.dnsmasq.daemon import daemon_of, runs
from gfwtools.errors import GfwtoolsError
from gfwtools.plumbing.apply import AS_BEFORE
from gfwtools.setup import boot, files, resolver_edits, resolver_facts
from gfwtools.storage import atomic
from gfwtools.storage.state import read_state, write_state
from gfwtools.system.commands import Runner

__all__ = ["adopt", "forget_loaded", "generated_files", "lost_words", "main_runs", "possible_files", "reason_of"]


def main_runs(config: Config) -> bool:
    """Whether the main dnsmasq runs, though it may be slow, or answer elsewhere than its files of now say."""
    return runs(config.paths.at(config.dns.pid_file)) or daemon_of(config).is_up(0.5)


def possible_files(config: Config) -> Iterator[Path]:
    """Every file that an update may write for the policies, in any layout and backend."""
    paths = config.paths
    for policy in config.policies:
        yield config.dnsmasq_conf(policy)
        for place in (paths.servers, paths.second, paths.list, paths.domains, paths.ipset, paths.nft):
            yield place(policy.name)


def generated_files(config: Config) -> list[str]:
    """Every file that the state speaks of."""
    state = read_state(config.paths.state)
    return [path for policy in state.policies.values() for path in policy.in_place]


def forget_loaded(paths: Paths, removed: Collection[Path] = ()) -> None:
    """Note that no running program has read our files any more, and that some are ``removed``."""
    state = read_state(paths.state)
    policies = {}
    for name, policy in state.policies.items():
        files = {path: "" if paths.at(path) in removed else written for path, written in policy.files.items()}
        policies[name] = policy._replace(loaded={}, files=files)
    if state.policies != policies:
        write_state(paths.state, state._replace(policies=policies))


def reason_of(error: GfwtoolsError) -> str:
    """A message without what its own part of the work says of the rest of the host."""
    text = str(error)
    for sentence in (AS_BEFORE, atomic.NOTHING):
        text = text.removesuffix(f"; {sentence}")
    return text


def adopt(config: Config, runner: Runner) -> list[str]:
    """Record the files of ours that no record speaks of, as the state's folder was lost.

    :returns: the files.
    """
    paths = config.paths
    snippet = paths.at(config.dns.conf_dir) / SNIPPET
    if files.record_path(paths).exists() or not snippet.exists():
        return []  # the record is whole, or there was no bootstrap
    places = (*resolver_edits.places(config), *boot.places())
    instead = resolver_edits.nameservers_instead(resolver_facts.observe(config, runner))
    return files.adopt(paths, places, instead)


def lost_words(config: Config, found: list[str]) -> str:
    """What was at those files before us is not known. resolv.conf gets the resolvers that dnsmasq asks."""
    return f"{files.record_path(config.paths)} was lost, and with it what was before gfwtools at {', '.join(found)}"

"""Which files a policy has, by layout and backend: path -> content. Pure; the paths are only named."""

from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from gfwtools.config.model import Config, Network, PolicyConfig
from gfwtools.lists.decode import Decoded
from gfwtools.lists.policy import Cover
from gfwtools.render import dnsmasq, generation, plain
from gfwtools.render.backends import TEXTS, Text
from gfwtools.render.not_sites import refused_answers

if TYPE_CHECKING:
    from gfwtools.lists.compiler import Compiled

__all__ = [
    "ADDRESS_RECORDS",
    "SERVERS_FILE_LIMIT",
    "Role",
    "cover_of",
    "files_of",
    "role_of",
    "unset_of",
    "without_claimed",
]

#: Above this many entries a ``servers-file`` costs more than a restart. dnsmasq 2.90 looks for each line among those it
#: had: at worst (another order, or many lines gone) it is silent for 0.03 s at 4,300 entries, 0.26 s at 12,000,
#: 0.8 s at 20,000, 3.8 s at 40,000 (make bench-dns) and 35 s at 110,775. A restart takes 0.02 to 0.1 s and loses what
#: is asked meanwhile, where a SIGHUP only has it wait: a quarter of a second late is the better of the two, no more.
SERVERS_FILE_LIMIT = 12_000
#: Records that may hold addresses besides those of A and AAAA (RFC 9460, section 7.3): dnsmasq puts these into no set.
ADDRESS_RECORDS = ("HTTPS", "SVCB")


class Role(Enum):
    """What has to happen when a file changes."""

    NONE = "none"  #: no running program reads it
    MAIN = "main"  #: the main dnsmasq reads it at start
    SERVERS = "servers"  #: the main dnsmasq reads it on SIGHUP
    SECOND = "second"  #: the policy's second dnsmasq reads it at start
    SEED = "seed"  #: it is loaded into the kernel


def files_of(
    config: Config,
    policy: PolicyConfig,
    cover: Cover,
    seeds: Iterable[Network],
    decoded: Decoded,
    backend: Text,
    unset: Iterable[str] = (),
    *,
    filters: bool = False,
) -> dict[Path, bytes]:
    """Every file of a policy, in the order in which they go into place.

    The list that explains the others comes first, and what dnsmasq starts from comes last.

    :param filters: dnsmasq can leave out records of a type, and refuse an answer by its network (2.90 and later).
    """
    paths, name, date = config.paths, policy.name, decoded.last_modified
    files: dict[Path, str | bytes] = {
        paths.list(name): decoded.data,
        paths.direct(name): plain.direct(cover).encode(),
        paths.domains(name): plain.domains(cover).encode(),
    }
    sets = backend.names(policy)
    files[backend.seed_file(paths, name)] = backend.seed(policy, seeds, list_date=date)
    main = config.dnsmasq_conf(policy)
    stamp = generation.stamp_of(name)
    if config.dns.layout == "paired":
        files[main] = dnsmasq.paired_file(cover, policy, unset=unset, sets=sets, list_date=date, stamp=stamp)
    else:
        port = config.second_port(policy)
        pid_file = on_host(config, paths.second_pid(name))
        refused = refused_answers(policy) if filters and config.dns.stop_rebind != "off" else ()
        records = ADDRESS_RECORDS if filters and not config.dns.https_records else ()
        second = dnsmasq.second(policy, port, pid_file, sets, refused=refused, records=records)
        files[paths.second(name)] = generation.at_start(second, name)
        # dnsmasq takes one servers-file in all ("illegal repeated keyword"): the first policy has it.
        if len(cover.patterns) > SERVERS_FILE_LIMIT or policy.name != config.policies[0].name:
            files[main] = dnsmasq.inline_servers(cover, policy, port, list_date=date, stamp=stamp)
        else:
            servers = dnsmasq.servers(cover, policy, port, list_date=date)
            files[paths.servers(name)] = generation.on_sighup(servers, name)
            leading = dnsmasq.split_main(policy, on_host(config, paths.servers(name)))
            files[main] = generation.leading(leading, name)
    return {path: text if isinstance(text, bytes) else text.encode() for path, text in files.items()}


def role_of(config: Config, policy: PolicyConfig, path: Path) -> Role:
    """What has to happen when the file at ``path`` changes."""
    paths, name = config.paths, policy.name
    return {
        config.dnsmasq_conf(policy): Role.MAIN,
        paths.servers(name): Role.SERVERS,
        paths.second(name): Role.SECOND,
        **{text.seed_file(paths, name): Role.SEED for text in TEXTS.values()},
    }.get(path, Role.NONE)


def cover_of(config: Config, compiled: "Compiled") -> Cover:
    """What a policy's files say. dnsmasq reads those of all policies as one."""
    return compiled.cover if len(config.policies) == 1 else compiled.cover_beside


def unset_of(config: Config, compiled: "Compiled") -> list[str]:
    """What needs a set line alone; beside other policies it is in the cover."""
    return compiled.unset if len(config.policies) == 1 else []


def without_claimed(cover: Cover, claimed: set[str]) -> tuple[Cover, list[str]]:
    """A cover without what an earlier policy's cover has already, and the domains that this policy loses by it.

    The longer domain wins by dnsmasq's own matching; only of the very same one there may not be two.

    :param claimed: the patterns of all policies before this one.
    """
    kept = Cover(*([pattern for pattern in patterns if pattern not in claimed] for patterns in cover))
    return kept, [domain for domain in cover.tunnelled if domain in claimed]


def on_host(config: Config, path: Path) -> str:
    """The path without the root."""
    return f"/{path.relative_to(config.root)}"

"""What ``up`` and ``update --reload`` do so that dnsmasq goes on asking the ISP's resolvers of today."""

import re
from contextlib import suppress

from gfwtools.config.model import Config
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.errors import LockedError, ResolverError
from gfwtools.setup import files, isp_resolvers, resolver_edits, resolver_facts
from gfwtools.setup.lease_hooks import COPIES
from gfwtools.setup.resolv_conf_writers import encode, snippet
from gfwtools.storage import atomic
from gfwtools.storage.journal import Journal
from gfwtools.system import ownership
from gfwtools.system.commands import Runner
from gfwtools.system.questions import RESOLV_CONF, nameservers_in

__all__ = ["renew", "with_servers_of_today"]


def renew(config: Config, runner: Runner, *, restarts: bool) -> list[str]:
    """Bring the copy of the ISP's resolvers up to date. dnsmasq reads it again by itself.

    :param restarts: where dnsmasq cannot follow a file, write its ``server=`` lines anew and restart it. A unit that
        systemd starts before dnsmasq cannot do that: the restart would wait for the unit.
    :returns: what was done, in words.
    :raises StoreError: a file cannot be read or written.
    :raises CommandError: dnsmasq was not restarted.
    """
    text = resolver_facts.text_of(config.paths, snippet(config)) or ""
    if not ownership.is_file(encode(text)) or config.dns.resolvers:
        return []
    followed = isp_resolvers.followed_by(text)
    if not followed:
        fixed = re.search(r"^server=[^/]", text, re.MULTILINE)
        return _renew_lines(config, runner) if restarts and fixed else []
    return _renew_copy(config, runner, followed) if followed in COPIES else []


def _renew_copy(config: Config, runner: Runner, copy: str) -> list[str]:
    place = config.paths.at(copy)
    before = (atomic.read(place) or b"").decode("utf-8", "replace")
    facts = resolver_facts.observe(config, runner) if _needs_look(config, before) else None
    if facts is None:
        return []
    found = isp_resolvers.Found(facts.resolvers, facts.found_in, facts.follow)
    after = isp_resolvers.copied(found)
    if not found.resolvers or found.follow != copy or _names(before) == _names(after):
        return []
    atomic.write_all({place: after.encode()})
    return [f"dnsmasq asks {', '.join(_names(after))} for what is not blocked (from {found.source})"]


def _needs_look(config: Config, copy: str) -> bool:
    """Whether the resolvers can have changed: the copy has a source that changes, or resolv.conf is not ours."""
    resolv_conf = config.paths.at(RESOLV_CONF)
    ours = ownership.has_header(resolv_conf)
    source = isp_resolvers.copied_from(copy)
    return not ours or not source or isp_resolvers.keeps_current(source)


def _names(text: str) -> list[str]:
    return sorted(set(nameservers_in(text)))


def _renew_lines(config: Config, runner: Runner) -> list[str]:
    facts = resolver_facts.observe(config, runner)
    # Since the user took no-resolv out, dnsmasq can follow a file: then it needs the copy as well.
    edits = [edit for edit in resolver_edits.edits(config, facts) if edit.path in (snippet(config), *COPIES)]
    if not facts.resolvers or not files.differing(edits, config.paths):
        return []
    journal = Journal(config.paths)
    try:
        with files.lock_setup(config.paths):
            if journal.is_open(files.TRANSACTION):
                return []  # the next bootstrap or teardown takes it back first
            with journal.transaction(files.TRANSACTION, {}) as transaction:
                files.put(edits, config.paths, transaction)
    except LockedError:
        return []  # a bootstrap that runs does the same
    with suppress(ResolverError):  # no service manager is known
        resolver = Dnsmasq(config, runner)
        resolver.make_folders()
        resolver.restart()
    return [f"dnsmasq asks {', '.join(map(str, facts.resolvers))} for what is not blocked (from {facts.found_in})"]


def with_servers_of_today(config: Config) -> None:
    """Before the files are put back: the original of resolv.conf gets the resolvers of the present lease.

    It is as old as bootstrap, and may name resolvers of a lease that has ended. A program that maintains a file of its
    own does so by itself. What is in the journal is corrected, so that a teardown that was killed is finished alike.

    :raises StoreError: a file cannot be read or written.
    """
    text = resolver_facts.text_of(config.paths, snippet(config)) or ""
    found = isp_resolvers.followed(config.paths, isp_resolvers.followed_by(text), frozenset())
    entry = files.recorded(config.paths).get(RESOLV_CONF)
    if entry is None or not found.by_hook:
        return
    original = files.original_of(entry)
    data = files.content_of(config.paths, original) or b""
    today = [str(server.address) for server in found.resolvers]
    before = _names(data.decode("utf-8", "replace"))
    if today and before and sorted(today) != before:
        others = re.sub(rb"^nameserver[ \t].*\n?", b"", data, flags=re.MULTILINE)
        ended = others if not others or others.endswith(b"\n") else others + b"\n"
        files.replace_original(
            config.paths, original, ended + "".join(f"nameserver {server}\n" for server in today).encode()
        )

"""/etc/resolv.conf stays ours: where a DHCP client or a person has overwritten it, ``update --reload`` puts it back."""

from gfwtools.config.model import Config
from gfwtools.dnsmasq.dnsmasq import Dnsmasq
from gfwtools.errors import LockedError
from gfwtools.setup import files, resolver_edits, resolver_facts
from gfwtools.storage import atomic
from gfwtools.storage.journal import Journal
from gfwtools.storage.lock import lock_folder
from gfwtools.system import ownership, questions
from gfwtools.system.commands import Runner
from gfwtools.system.questions import RESOLV_CONF

__all__ = ["put_back_ours"]


def put_back_ours(config: Config, runner: Runner) -> str:
    """Point this host at its own dnsmasq again. What stands there now becomes what teardown puts back.

    It is left alone where bootstrap has not written it, where it leads to our dnsmasq as it is, and where our dnsmasq
    does not answer: the other resolver is then the better one.

    :returns: what was done, in one line; empty where nothing was.
    :raises StoreError: a file cannot be read or written.
    """
    place = config.paths.at(RESOLV_CONF)
    # A healthy host is asked no more than this.
    if ownership.has_header(place) or RESOLV_CONF not in files.recorded(config.paths) or atomic.is_mount(place):
        return ""
    daemon = Dnsmasq(config, runner).main
    asked = questions.resolver(config.paths, runner, daemon.address, daemon.listens_at)
    if asked.is_ours or not daemon.is_up():
        return ""
    facts = resolver_facts.observe(config, runner)
    edits = [edit for edit in resolver_edits.edits(config, facts) if edit.path == RESOLV_CONF]
    journal = Journal(config.paths)
    try:
        with lock_folder(config.paths.state_dir, "bootstrap or teardown"):
            if journal.is_open(files.TRANSACTION) or RESOLV_CONF not in files.recorded(config.paths):
                return ""  # the next bootstrap or teardown takes it back first; or a teardown has just run
            with journal.transaction(files.TRANSACTION, {}) as transaction:
                files.put(edits, config.paths, transaction)
    except LockedError:
        return ""  # a bootstrap that runs does the same
    return (
        f"repaired: {RESOLV_CONF} named {asked.address}, and names this host's dnsmasq again; if another program goes "
        "on writing it, run: gfwtools bootstrap"
    )

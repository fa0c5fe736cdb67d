"""Does a resolver of a policy answer this host through the tunnel? The same question as dnsmasq's."""

from concurrent.futures import ThreadPoolExecutor

from gfwtools.config.model import Config, PolicyConfig
from gfwtools.diagnose.firewall.crossing import Verdict
from gfwtools.diagnose.firewall.judge import judge_questions_into
from gfwtools.diagnose.usual import names_to_ask
from gfwtools.dnsmasq import client
from gfwtools.dnsmasq.client import Reply
from gfwtools.plumbing.plan import Kind, Piece, State
from gfwtools.system.commands import Runner

__all__ = ["clean_piece"]


def clean_piece(config: Config, policy: PolicyConfig, runner: Runner) -> Piece:
    """One resolver that answers is enough, as it is for dnsmasq. A refusal is an answer: the way works."""
    name = f"clean resolver of {policy.name}"
    asked = names_to_ask(config)[0]
    with ThreadPoolExecutor(max_workers=len(policy.upstream)) as pool:
        replies = list(pool.map(lambda server: _ask(str(server.address), server.port, asked), policy.upstream))
    words = "; ".join(
        f"{server}: {reply.error or f'answers in {reply.seconds * 1000:.0f} ms'}"
        for server, reply in zip(policy.upstream, replies, strict=True)
    )
    if any(reply.rcode for reply in replies):
        return Piece(name, State.OK, words, Kind.TUNNEL)
    words += ": no blocked name resolves"
    judged = judge_questions_into(policy, runner)
    if judged.verdict is Verdict.BLOCKED:
        return Piece(name, State.MISMATCH, f"{words}; {judged.words}", Kind.TUNNEL, remedy=judged.remedy)
    remedy = (
        f"ping -I {policy.interface} {policy.upstream[0].address}; if it answers, a rule of this host stops or "
        "changes the packets: see `iptables -vL`, `iptables -t mangle -vL` or `nft list ruleset`"
    )
    return Piece(name, State.MISMATCH, words, Kind.TUNNEL, remedy=remedy)


def _ask(address: str, port: int, name: str) -> Reply:
    reply = client.ask(address, port, name, "A")
    return client.ask(address, port, name, "A") if reply.error else reply  # one packet may be lost

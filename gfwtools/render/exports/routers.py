"""Routers: their own resolver forwards names, and puts the addresses into a list of its firewall."""

from gfwtools.render.exports.values import Meaning, Said
from gfwtools.render.header import header

__all__ = ["routeros"]


def routeros(meaning: Meaning) -> Said:
    """A script for ``/import`` of RouterOS 7.11 or later. An import replaces what an earlier one has added; exceptions
    cannot be said."""
    policy = meaning.policy
    server = policy.upstream[0].address
    mark = f"gfwtools {policy.name}"
    lines = ["/ip dns static", f'remove [find comment="{mark}"]']
    lines += [
        f'add name={name} type=FWD match-subdomain=yes forward-to={server} address-list={policy.set} comment="{mark}"'
        for name in meaning.cover.tunnelled
    ]
    for version, menu in ((4, "/ip"), (6, "/ipv6")):
        lines += [f"{menu} firewall address-list", f'remove [find comment="{mark}"]']
        lines += [
            f'add list={policy.set} address={network} comment="{mark}"'
            for network in meaning.networks
            if network.version == version
        ]
    body = "".join(f"{line}\n" for line in lines)
    head = header(f"the policy {policy.name} for RouterOS", meaning.list_date, body)
    return Said(head + body, tuple(meaning.cover.freed))

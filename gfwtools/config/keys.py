"""The table of keys: what each means, in which words, and which values it takes.

``load`` takes its checks from here. ``template`` makes the file that bootstrap writes, and ``make keys`` the rows of
docs/configuration.md. The defaults are those of ``model``.
"""

from typing import NamedTuple

from gfwtools.config.checks import (
    Check,
    address,
    boolean,
    choice,
    conf_dir,
    connmark_mask,
    dnsmasq_path,
    domain,
    integer,
    interface,
    list_of,
    nat,
    network,
    number,
    one_line,
    own_list,
    proxy,
    set_name,
    source,
    table_number,
    upstream,
)
from gfwtools.config.model import Dns, Fetch, Host, PolicyConfig

__all__ = ["KEYS", "Key"]


class Key(NamedTuple):
    """One key of ``config.toml``. The texts are Markdown; the template leaves out the backticks."""

    name: str
    kind: str
    """What kind of value it takes, in one word."""
    check: Check
    meaning: str
    """One sentence."""
    limits: str = ""
    """The values that it takes, where the meaning does not say so."""
    see: str = ""
    """Where the page says more, with a link where it is another page."""

    @property
    def sentences(self) -> str:
        """The meaning and the limits."""
        return f"{self.meaning} {self.limits}." if self.limits else self.meaning


def _by_name(*keys: Key) -> dict[str, Key]:
    return {key.name: key for key in keys}


#: The keys of each table, in the order of the file.
KEYS: dict[type[Fetch | Dns | Host | PolicyConfig], dict[str, Key]] = {
    Fetch: _by_name(
        Key(
            "timeout",
            "seconds",
            number(0.1, 3600, "a time in seconds"),
            "Seconds for one mirror, from connecting to the last byte.",
            limits="0.1 to 3600",
        ),
        Key(
            "connect_timeout",
            "seconds",
            number(0.1, 3600, "a time in seconds"),
            "Seconds to connect, with name resolution and TLS; at most `timeout`.",
            limits="0.1 to 3600",
        ),
        Key(
            "hedge",
            "seconds",
            number(0, 3600, "a time in seconds"),
            "Seconds to wait for an answer before the next mirror is asked too; half as long after each silent one.",
            limits="0 to 3600",
        ),
        Key(
            "max_bytes",
            "bytes",
            integer(1024, 2**40, "a size in bytes"),
            "Size of the largest list in bytes, before and after decoding; a larger one is refused.",
            limits="1024 to 1099511627776",
        ),
        Key(
            "proxy",
            "text",
            proxy,
            'The proxy for lists: `"http://HOST:PORT"` or `"socks5://HOST:PORT"`; if empty, that of the environment.',
            see="below",
        ),
        Key(
            "min_share",
            "share",
            number(0, 1, "a share"),
            "The share of the largest list of 30 days, and of the last domains, below which `--force` is needed.",
            limits="0 to 1",
        ),
    ),
    Dns: _by_name(
        Key(
            "layout",
            "choice",
            choice("paired", "split"),
            'How dnsmasq gets the list: `"paired"` (one dnsmasq) or `"split"` (a second one for the blocked domains: '
            "faster, and an update needs a signal, not a restart).",
            see="[how-it-works.md](how-it-works.md)",
        ),
        Key("conf_dir", "path", conf_dir, "The directory from which dnsmasq reads its configuration files."),
        Key(
            "manager",
            "choice",
            choice("auto", "systemd", "openrc", "command", "none"),
            'What restarts dnsmasq: `"auto"`, `"systemd"`, `"openrc"`, `"command"` (the next key) or `"none"`.',
            see="below",
        ),
        Key(
            "restart",
            "list",
            list_of(one_line, 'the command as a list, ["service", "dnsmasq", "restart"]'),
            'The command for manager `"command"`, as a list: `["service", "dnsmasq", "restart"]`.',
        ),
        Key(
            "pid_file",
            "path",
            dnsmasq_path,
            "The file where dnsmasq writes its process id; gfwtools reads it to send SIGHUP.",
        ),
        Key(
            "resolvers",
            "list",
            list_of(upstream, 'resolvers, ["192.168.1.1"]'),
            "Resolvers for everything that is not blocked; if empty, those of the host.",
        ),
        Key(
            "listen",
            "list",
            list_of(address, 'addresses, ["192.168.1.1"]'),
            "Addresses on which dnsmasq listens besides loopback; if empty, on a gateway those of the LAN.",
        ),
        Key(
            "canary",
            "boolean",
            boolean,
            "Answer NXDOMAIN for use-application-dns.net, so that Firefox does not bypass dnsmasq.",
            see="below",
        ),
        Key(
            "https_records",
            "boolean",
            boolean,
            "Let HTTPS and SVCB records (types 65 and 64) through. They may hold addresses that are in no set.",
            see="below",
        ),
        Key(
            "stop_rebind",
            "choice",
            choice("listed", "all", "off"),
            'Whose answers may not have private addresses: `"listed"` (the blocked domains; split layout only), '
            '`"all"` (all names) or `"off"`.',
            see="below",
        ),
        Key(
            "rebind_ok",
            "list",
            list_of(domain, 'names, ["plex.direct"]'),
            'With `stop_rebind = "all"`: names that may have private addresses, and what is under them.',
        ),
        Key("dnssec", "boolean", boolean, "Let dnsmasq validate DNSSEC."),
        Key(
            "addn_hosts",
            "list",
            list_of(dnsmasq_path, 'files, ["/etc/hosts.lan"]'),
            'Further hosts files for dnsmasq: `["/etc/hosts.lan"]`.',
        ),
        Key("warm", "boolean", boolean, "After an update that dnsmasq has loaded, run `gfwtools warm`."),
    ),
    Host: _by_name(
        Key(
            "backend",
            "choice",
            choice("auto", "iptables", "nftables"),
            'What marks the packets: `"iptables"` (with ipset), `"nftables"` or `"auto"`.',
            see="below",
        ),
        Key("gateway", "boolean", boolean, "Also route the packets that this host forwards for a LAN."),
        Key(
            "preference",
            "number",
            # Rule 0 is the kernel's lookup of local, 32766 its lookup of main.
            integer(1, 32000, "a preference"),
            "Preference of the first of two rules (`ip rule`); each further policy takes the next two.",
            limits="1 to 32000",
        ),
        Key(
            "connmark_mask",
            "number",
            connmark_mask,
            "Bits of the connection mark, side by side and enough to count the policies, in which gfwtools keeps the "
            "policy of a connection; it changes no other bit.",
            see="[how-it-works.md](how-it-works.md)",
        ),
    ),
    PolicyConfig: _by_name(
        Key(
            "format",
            "choice",
            choice("autoproxy", "domains", "hosts", "dnsmasq"),
            'Format of the list: `"autoproxy"`, `"domains"` (one a line), `"hosts"` or `"dnsmasq"`.',
        ),
        Key(
            "sources",
            "list",
            list_of(source, "URLs or paths", least=1),
            "Mirrors of one list, tried in order: http(s) URLs, `file:` URLs or paths; at least one.",
        ),
        Key(
            "allow",
            "list",
            list_of(own_list, 'files and URLs, ["/etc/gfwtools/allow.txt"]'),
            "Files or URLs with your own domains, one a line, that always go directly.",
        ),
        Key(
            "deny",
            "list",
            list_of(own_list, 'files and URLs, ["/etc/gfwtools/deny.txt"]'),
            "Files or URLs with your own domains, one a line, that always go through the tunnel.",
        ),
        Key(
            "direct",
            "list",
            list_of(own_list, 'files and URLs, ["/etc/gfwtools/direct.conf"]'),
            "Files or URLs of domains that are known to work directly, one a line or as dnsmasq files: no rule of the "
            "list is widened over them.",
            see="[lists.md](lists.md)",
        ),
        Key(
            "granularity",
            "choice",
            choice("registrable", "host"),
            'What a rule covers: `"registrable"` (example.co.uk from any host under it) or `"host"` (the host as the '
            "rule writes it).",
            see="[lists.md](lists.md)",
        ),
        Key(
            "upstream",
            "list",
            list_of(upstream, 'resolvers, ["8.8.8.8#53"]', least=1),
            "Clean resolvers, reached through the tunnel: `ADDRESS` or `ADDRESS#PORT`; at least one.",
        ),
        Key(
            "set",
            "name",
            set_name,
            "Name of the set in the kernel; the names of its other sets begin with it (gfwlist6 for IPv6).",
            limits="At most 23 characters",
        ),
        Key(
            "mark",
            "number",
            integer(1, 2**32 - 1, "a mark"),
            "Firewall mark of tunnelled packets.",
            limits="1 to 4294967295",
        ),
        Key(
            "table",
            "number",
            table_number,
            "Routing table of tunnelled packets.",
            limits="1 to 4294967295, but not the kernel's own 253, 254 and 255",
        ),
        Key("interface", "name", interface, "Interface of the tunnel.", limits="At most 15 characters"),
        Key(
            "nat",
            "choice",
            nat,
            'Source address of tunnelled packets: `"masquerade"` (the interface\'s), `"snat:ADDRESS"` or `"none"`.',
            see="below",
        ),
        Key(
            "seeds",
            "list",
            list_of(network, 'addresses and networks, ["91.108.4.0/22"]'),
            'Addresses and networks that are always in the set: `["91.108.4.0/22"]`.',
        ),
        Key(
            "routes",
            "list",
            list_of(network, 'networks, ["192.168.58.0/24"]'),
            'Networks behind the tunnel, routed to it in the main table: `["192.168.58.0/24"]`.',
        ),
    ),
}

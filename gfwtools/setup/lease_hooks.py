"""What dhclient and dhcpcd run at each lease, so that dnsmasq has the resolvers of the lease at once.

Both source a shell script with the values of the lease in variables. Ours writes the resolvers of each lease to a file
of its own, and all of them to the copy that dnsmasq watches. Where no lease names a resolver, the copy stays.

Debian's dhcpcd.service has a sandbox (``ProtectSystem=strict``): in it the hook may write to dhcpcd's folders only.
"""

from gfwtools.render.header import WRITTEN

__all__ = [
    "COPIES",
    "COPY",
    "DHCLIENT_LEASES",
    "DHCPCD_COPY",
    "DHCPCD_LEASES",
    "HEADER",
    "LEASES",
    "dhclient",
    "dhcpcd",
    "head",
]

HEADER = f"{WRITTEN} bootstrap; gfwtools teardown puts back what was here before.\n"

#: The copy. dnsmasq does not start where the folder of a resolv-file is missing, and this one is always there.
COPY = "/var/lib/gfwtools/resolv.conf"
#: Where dhclient itself keeps its leases (dhclient.leases(5)).
DHCLIENT_LEASES = "/var/lib/dhcp/*.leases"
#: A file for each lease, in the format of resolv.conf(5).
LEASES = "/run/gfwtools/leases/*"
DHCPCD_COPY = "/var/lib/dhcpcd/gfwtools.conf"
DHCPCD_LEASES = "/run/dhcpcd/gfwtools/*"
COPIES = (COPY, DHCPCD_COPY)


def head(source: str) -> str:
    """The first lines of a copy. A hook writes them too: the copy may be lost."""
    return f"{HEADER}# Copied from: {source}\n"


def _write(leases: str, source: str, copy: str) -> str:
    heading = " ".join(f"'{line}'" for line in head(source).splitlines())
    # Addresses only: what a lease says comes from the network. Two clients may run it in the same moment: hence $$.
    return f"""\
gfwtools_lease() {{ # NAME [RESOLVER...]
    gfwtools_file={leases[:-1]}$1
    shift
    mkdir -p {leases[:-2]} && rm -f "$gfwtools_file"
    for gfwtools_server; do
        case $gfwtools_server in
        *[!0-9a-fA-F.:]* | fe80:*) ;;
        *) echo "nameserver $gfwtools_server" >>"$gfwtools_file" ;;
        esac
    done
    if cat {leases} >/dev/null 2>&1; then
        {{ printf '%s\\n' {heading}; cat {leases}; }} >{copy}.$$
        chmod 644 {copy}.$$ && mv -f {copy}.$$ {copy}
    fi
}}
"""


_DHCLIENT = """\
make_resolv_conf() { :; }
"""
_DHCLIENT_LEASE = """\
case $reason in
BOUND | RENEW | REBIND | REBOOT) gfwtools_lease "dhclient.$interface.4" $new_domain_name_servers ;;
BOUND6 | RENEW6 | REBIND6) gfwtools_lease "dhclient.$interface.6" $new_dhcp6_name_servers ;;
EXPIRE | FAIL | RELEASE | STOP) gfwtools_lease "dhclient.$interface.4" ;;
EXPIRE6 | RELEASE6 | STOP6) gfwtools_lease "dhclient.$interface.6" ;;
esac
"""

# As dhcpcd's own hook 20-resolv.conf, which this one switches off. A change of dhcpcd.conf would need a SIGHUP, and
# that drops the leases for some seconds.
_DHCPCD = """\
skip_hooks="$skip_hooks resolv.conf"
"""
_DHCPCD_LEASE = """\
case $reason in
BOUND6 | RENEW6 | REBIND6 | REBOOT6 | INFORM6) gfwtools_servers=$new_dhcp6_name_servers ;;
ROUTERADVERT) gfwtools_servers="$nd1_rdnss1_servers $nd2_rdnss1_servers" ;;
*) gfwtools_servers=$new_domain_name_servers ;;
esac
if [ "$if_up" = true ] || [ "$reason" = ROUTERADVERT ]; then
    gfwtools_lease "dhcpcd.$ifname" $gfwtools_servers
elif [ "$if_down" = true ]; then
    gfwtools_lease "dhcpcd.$ifname"
fi
"""


def dhclient(*, stops: bool, copies: bool) -> str:
    """The script in /etc/dhcp/dhclient-enter-hooks.d. The last definition of ``make_resolv_conf`` counts
    (dhclient-script(8)).

    :param stops: dhclient leaves /etc/resolv.conf alone, and gives resolvconf nothing.
    :param copies: the resolvers of each lease go to the copy.
    """
    return (_DHCLIENT if stops else "") + (_write(LEASES, DHCLIENT_LEASES, COPY) + _DHCLIENT_LEASE if copies else "")


def dhcpcd(*, stops: bool, copies: bool) -> list[str]:
    """The same for dhcpcd: the lines of /etc/dhcpcd.enter-hook (dhcpcd-run-hooks(8))."""
    lease = _write(DHCPCD_LEASES, DHCPCD_LEASES, DHCPCD_COPY) + _DHCPCD_LEASE
    return ((_DHCPCD if stops else "") + (lease if copies else "")).splitlines()

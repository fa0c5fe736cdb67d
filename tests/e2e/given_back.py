"""How bootstrap is run where it is made to fail, and what has to be as before when it has failed or was undone."""

from lab import Lab

BOOTSTRAP = ("-v", "bootstrap", "--interface", "wg0", "--init", "none", "--yes")

#: What nft lists, but for what changes by itself: the counters, and who asks dnsmasq, whom the kernel enters and drops.
RULESET = r"""nft list ruleset | sed '
    s/ counter packets [0-9]* bytes [0-9]*//
    /set asking[46] {/,/^\t}/ { /elements = {/,/^\t}/ { /^\t}/!d } }'"""


def everything(lab: Lab) -> str:
    """The kernel's state and the files that teardown must give back, byte for byte."""
    script = f"""
    # Counters, and what a look itself makes: the tables of iptables exist once somebody has listed them.
    for t in iptables-save ip6tables-save; do $t | grep -v '^#' | sed 's/ *\\[[0-9]*:[0-9]*\\]//'; done
    {RULESET}
    ip rule; ip -6 rule; ip route show table all | grep -v fe80; ip -6 route show table all | grep -v fe80 | sort
    ipset list -n
    sysctl -a 2>/dev/null | grep -E 'rp_filter|forwarding|ip_forward|accept_ra |src_valid_mark' | sort
    cd / && find etc -type f ! -path 'etc/gfwtools/*' ! -path etc/list.txt ! -name '*.cache' | sort | xargs sha256sum
    cat /etc/resolv.conf
    """
    return lab.gateway.run("sh", "-c", script).stdout


def own_files(lab: Lab) -> str:
    """What :func:`everything` leaves out: the files of the tool itself, but for its locks, which stay by intent."""
    script = "find /etc/gfwtools /var/lib/gfwtools -type f ! -name lock ! -name host.lock 2>/dev/null | sort | xargs -r sha256sum"
    return lab.gateway.run("sh", "-c", script).stdout

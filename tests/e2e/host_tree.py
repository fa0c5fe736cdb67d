"""What a host of a lab has in /etc, /var and /run: a small Debian, with the files of its package dnsmasq or without them.

The tests write all of it, so that a host is the same on every machine. Two things come from the machine, as they belong
to its programs and libraries: which program stands behind a name (``/etc/alternatives``), and where a library lies
(``/etc/ld.so.cache``).
"""

import io
import os
import tarfile
from functools import cache
from pathlib import Path

#: The variable that chooses the form of every host: empty, or ``debian-dnsmasq``.
FORM = "GFWTOOLS_LAB"
_FORMS = {"": False, "debian-dnsmasq": True}

#: What the host has of its own. ``tmpfiles.d`` is in it as the tool looks there for what the package has put there.
TOPS = ("usr/lib/tmpfiles.d", "etc", "run", "var")

_FOLDERS = (
    *("etc/cron.d", "etc/cron.daily", "etc/default", "etc/dnsmasq.d", "etc/init.d", "etc/iproute2/rt_tables.d"),
    *("etc/network/interfaces.d", "etc/ssl/certs", "etc/sysctl.d", "etc/systemd/system"),
    *("run/dnsmasq", "run/lock"),
    "usr/lib/tmpfiles.d",
    *("var/cache", "var/lib/misc", "var/log", "var/spool/cron", "var/tmp"),
)

_LINKS = {
    "var/lock": "/run/lock",
    "var/run": "/run",
    # Debian's own choice; a machine may have another.
    **{
        f"etc/alternatives/{family}tables{action}": f"/usr/sbin/{family}tables-nft{action}"
        for family in ("ip", "ip6")
        for action in ("", "-save", "-restore")
    },
}

_FILES = {
    "etc/passwd": """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:x:2:2:bin:/bin:/usr/sbin/nologin
sys:x:3:3:sys:/dev:/usr/sbin/nologin
dnsmasq:x:100:65534:dnsmasq,,,:/var/lib/misc:/usr/sbin/nologin
tcpdump:x:101:101::/nonexistent:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
""",
    "etc/group": """\
root:x:0:
daemon:x:1:
bin:x:2:
sys:x:3:
adm:x:4:
tty:x:5:
dip:x:30:
tcpdump:x:101:
nogroup:x:65534:
""",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n",
    "etc/hostname": "lab\n",
    "etc/hosts": """\
127.0.0.1	localhost
127.0.1.1	lab
::1	localhost ip6-localhost ip6-loopback
ff02::1	ip6-allnodes
ff02::2	ip6-allrouters
""",
    "etc/host.conf": "multi on\n",
    # Of an address that nobody has: a lab writes its own.
    "etc/resolv.conf": "nameserver 192.0.2.1\n",
    "etc/protocols": """\
ip	0	IP
icmp	1	ICMP
tcp	6	TCP
udp	17	UDP
ipv6	41	IPv6
gre	47	GRE
esp	50	IPSEC-ESP
ipv6-icmp	58	IPv6-ICMP
""",
    "etc/services": """\
ssh	22/tcp
domain	53/tcp
domain	53/udp
bootps	67/udp
bootpc	68/udp
http	80/tcp
ntp	123/udp
https	443/tcp
https	443/udp
domain-s	853/tcp
""",
    "etc/ethertypes": "IPv4	0800\nARP	0806\nIPv6	86DD\n",
    "etc/iproute2/group": "0	default\n",
    "etc/iproute2/rt_protos": "0	unspec\n1	redirect\n2	kernel\n3	boot\n4	static\n9	ra\n16	dhcp\n",
    "etc/iproute2/rt_scopes": "0	global\n255	nowhere\n254	host\n253	link\n200	site\n",
    "etc/iproute2/rt_tables": "255	local\n254	main\n253	default\n0	unspec\n",
    "etc/iproute2/rt_tables.d/README": "Each file in this directory is an rt_tables configuration file.\n",
    "etc/network/interfaces": "source /etc/network/interfaces.d/*\n",
    "etc/sysctl.conf": "# Nothing is set here.\n",
}

#: What Debian's package dnsmasq adds to its dnsmasq-base, as far as it says something: the comments are left out.
_DNSMASQ_PACKAGE = {
    "etc/default/dnsmasq": """\
# By default search this drop directory for configuration options.
CONFIG_DIR=/etc/dnsmasq.d,.dpkg-dist,.dpkg-old,.dpkg-new

#IGNORE_RESOLVCONF=yes
#DNSMASQ_EXCEPT="lo"
""",
    "etc/dnsmasq.conf": """\
# Configuration file for dnsmasq.
#port=5353
#conf-file=/etc/dnsmasq.more.conf
#conf-dir=/etc/dnsmasq.d
#conf-dir=/etc/dnsmasq.d/,*.conf
""",
    "etc/dnsmasq.d/README": """\
# All files in this directory will be read by dnsmasq as
# configuration files, except if their names end in
# ".dpkg-dist",".dpkg-old" or ".dpkg-new"
#
# This can be changed by editing /etc/default/dnsmasq
""",
    "etc/init.d/dnsmasq": """\
#!/bin/sh
### BEGIN INIT INFO
# Provides:       dnsmasq
# Required-Start: $network $remote_fs $syslog
# Required-Stop:  $network $remote_fs $syslog
# Default-Start:  2 3 4 5
# Default-Stop:   0 1 6
# Description:    DHCP and DNS server
### END INIT INFO
DAEMON=/usr/sbin/dnsmasq
PIDFILE=/run/dnsmasq/dnsmasq.pid
[ -r /etc/default/dnsmasq ] && . /etc/default/dnsmasq

start() {
    start-stop-daemon --start --quiet --pidfile $PIDFILE --exec $DAEMON -- -x $PIDFILE -u dnsmasq \\
        ${RESOLV_CONF:+ -r ${RESOLV_CONF}} ${CONFIG_DIR:+ -7 ${CONFIG_DIR}} ${DNSMASQ_OPTS} --local-service
}

stop() {
    start-stop-daemon --stop --quiet --retry=TERM/30/KILL/5 --pidfile $PIDFILE --name dnsmasq
}

case "$1" in
start | stop) "$1" ;;
restart | force-reload) stop; start ;;
*) echo "Usage: /etc/init.d/dnsmasq {start|stop|restart|force-reload}" >&2; exit 3 ;;
esac
""",
    "etc/insserv.conf.d/dnsmasq": "$named dnsmasq\n",
    "etc/resolvconf/update.d/dnsmasq": """\
#!/bin/sh
set -e
[ -x /usr/sbin/dnsmasq ] || exit 0
[ -x /lib/resolvconf/list-records ] || exit 1
cd /run/resolvconf/interface
sed -n -e 's/^[[:space:]]*nameserver/nameserver/p' $(/lib/resolvconf/list-records --after lo.dnsmasq) \\
    >/run/dnsmasq/resolv.conf
""",
    "usr/lib/tmpfiles.d/dnsmasq.conf": "d /run/dnsmasq 0755 dnsmasq nogroup -\n",
}
_PROGRAMS = {"etc/init.d/dnsmasq", "etc/resolvconf/update.d/dnsmasq"}


def with_dnsmasq_package() -> bool:
    """Whether the hosts of this run have the package's files.

    :raises ValueError: there is no such form.
    """
    form = os.environ.get(FORM, "")
    if form not in _FORMS:
        raise ValueError(f"{FORM}={form}: no such form of a lab; leave it empty, or say debian-dnsmasq")
    return _FORMS[form]


@cache
def archive(dnsmasq_package: bool) -> bytes:
    """The tree as a tar archive."""
    etc = Path("/etc")
    programs = [link for link in etc.glob("alternatives/*") if link.is_symlink() and os.access(link, os.X_OK)]
    machine = {f"etc/alternatives/{link.name}": os.readlink(link) for link in programs}
    files = {name: text.encode() for name, text in (_FILES | (_DNSMASQ_PACKAGE if dnsmasq_package else {})).items()}
    if (libraries := etc / "ld.so.cache").exists():
        files["etc/ld.so.cache"] = libraries.read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name in _FOLDERS:
            tar.addfile(_entry(name, tarfile.DIRTYPE, 0o1777 if name == "var/tmp" else 0o755))
        for name, target in (machine | _LINKS).items():
            link = _entry(name, tarfile.SYMTYPE, 0o777)
            link.linkname = target
            tar.addfile(link)
        for name, data in files.items():
            file = _entry(name, tarfile.REGTYPE, 0o755 if name in _PROGRAMS else 0o644)
            file.size = len(data)
            tar.addfile(file, io.BytesIO(data))
    return packed.getvalue()


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry

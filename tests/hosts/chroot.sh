#!/bin/sh
# chroot.sh network|alone MOUNTPOINT FOLDER-OR-OVERLAY COMMAND...
# Runs COMMAND in a root that is off, in mount and network namespaces that the caller made for it alone.
set -eu
network=$1 root=$2 where=$3
shift 3

mount --make-rprivate /
case $where in
    lowerdir=*) mount -t overlay gfw-root -o "$where" "$root" ;;
    *) mount --bind "$where" "$root" ;;
esac
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmp "$root/tmp"
mount -t tmpfs run "$root/run"

undo() {
    rm -f "$root/usr/sbin/policy-rc.d"
    [ "$network" = alone ] || rm -f "$root/etc/resolv.conf"
}
trap undo EXIT
# Packages start no service here.
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod +x "$root/usr/sbin/policy-rc.d"
if [ "$network" = network ]; then
    # Downloads come before any package that keeps this file.
    rm -f "$root/etc/resolv.conf"
    cat /etc/resolv.conf >"$root/etc/resolv.conf"
fi

chroot "$root" env -i HOME=/root TERM=dumb LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    ${http_proxy:+http_proxy="$http_proxy"} ${https_proxy:+https_proxy="$https_proxy"} "$@"

#!/bin/sh
# init.sh machine|container ROOT OVERLAY: what comes before PID 1 of a host, in namespaces of its own (machine.py).
# It mounts the disk and the kernel's file systems, makes the devices, and becomes the init of the disk.
set -eu
kind=$1 root=$2 overlay=$3

mount --make-rprivate /
mount -t overlay gfw-host -o "$overlay" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"

mount -t tmpfs -o mode=755 dev "$root/dev"
mkdir "$root/dev/net" "$root/dev/pts" "$root/dev/shm"
# kmsg is a second null: the kernel's log is this machine's.
while read -r name mode numbers; do
    # shellcheck disable=SC2086 # two numbers
    mknod -m "$mode" "$root/dev/$name" c $numbers
done <<END
null 666 1 3
zero 666 1 5
full 666 1 7
random 666 1 8
urandom 666 1 9
kmsg 644 1 3
tty 666 5 0
net/tun 666 10 200
END
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${number%:*}" "$root/dev/${number#*:}"
done
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=1777 tmp "$root/tmp"

# The kernel is this machine's: of /proc/sys only net belongs to the host's own namespace.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount --bind "$root/proc/sys/net" "$root/proc/sys/net"
mount -o remount,bind,rw "$root/proc/sys/net"
[ ! -e "$root/proc/sysrq-trigger" ] || mount --bind "$root/dev/null" "$root/proc/sysrq-trigger"

if [ "$kind" = machine ]; then
    # systemd listens for devices only where /dev is a devtmpfs or udev runs already (sd_device_monitor_new(3)): without
    # this file no *.device unit is ever there. udev's socket takes its place.
    mkdir -p "$root/run/udev"
    : >"$root/run/udev/control"
else
    # As in LXC and systemd-nspawn: no udev, and a boot id of its own.
    mount -o remount,bind,ro "$root/sys"
    cat /proc/sys/kernel/random/uuid >"$root/run/boot_id"
    mount --bind "$root/run/boot_id" "$root/proc/sys/kernel/random/boot_id"
fi

mkdir -p "$root/mnt"
cd "$root"
pivot_root . mnt
umount -l /mnt
exec </dev/null >/dev/null 2>&1
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin /sbin/init --show-status=no

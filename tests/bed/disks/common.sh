# What the guests' disks have in common. To be sourced by what runs in the outer machine, with the disk as
# /dev/disk0 and Debian in tree.tar.
set -euo pipefail

disk=$(readlink /dev/disk0)

# Makes vg0 of a partition, with volumes for swap and root; the root takes what is left.
make_volumes() {
    pvcreate -q "$1"
    vgcreate -q vg0 "$1"
    lvcreate -q -y -n swap -L 64M vg0
    lvcreate -q -y -n root -l 100%FREE vg0
    mkswap -q /dev/vg0/swap
}

uuid_of() { blkid -o value -s UUID "$1"; }

# Unpacks Debian at /mnt, but for some files, and sets it up; with the kernel's file systems for programs
# that follow.
unpack() {
    tar -x -C /mnt -f tree.tar "$@"
    cp -r guest/etc /mnt/
    install -m 755 guest/init /mnt/usr/local/sbin/init
    cp guest/set-up /mnt/
    local name
    for name in dev proc sys; do mount --bind /$name /mnt/$name; done
    mount -t tmpfs tmpfs /mnt/run
    inside sh -e /set-up
    rm /mnt/set-up
}

# Unpacks Debian at /mnt with an initrd that has drivers of AHCI disks alone.
unpack_host_only() {
    unpack --exclude='./boot/initrd.img-*' --exclude='./boot/initramfs-[0-9]*'
    local initrd
    initrd=$(echo /mnt/boot/initramfs-host-only-*)
    mv "$initrd" "/mnt/boot/initrd.img-${initrd#*host-only-}"
}

# Has systemd-networkd give the card of that name, and no other, a fixed address.
fixed_address() {
    printf '[Match]\nName=enp3s0\n\n[Network]\nAddress=192.0.2.10/24\n' \
        >/mnt/etc/systemd/network/lan.network
}

# Has NetworkManager do that.
fixed_address_by_network_manager() {
    inside systemctl disable --quiet systemd-networkd
    local file=/mnt/etc/NetworkManager/system-connections/lan.nmconnection
    printf '[connection]\nid=lan\ntype=ethernet\ninterface-name=enp3s0\n\n[ipv4]\nmethod=manual\n' >$file
    echo address1=192.0.2.10/24 >>$file
    chmod 600 $file
}

inside() { chroot /mnt env PATH=/usr/sbin:/usr/bin:/sbin:/bin DM_DISABLE_UDEV=1 "$@"; }

# Writes a line of fstab: `mount_later WHAT WHERE TYPE OPTIONS PASS`. A busy machine may take its time.
mount_later() {
    echo "$1 $2 $3 $4,x-systemd.device-timeout=0 0 $5" >>/mnt/etc/fstab
}

finish() {
    umount -R /mnt
    vgchange -q -an
    sync
}

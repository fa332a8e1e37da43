"""The smallest guest that really boots: MBR, ext4, extlinux, Debian's cloud kernel, busybox.

Decides what is in it and what it says on its console:
`BOOT-OK vm=<hostname> boots=<n> sum=<md5 of /srv/data/payload.bin> uptime=<s>`, where `boots` is
counted by the guest on its own disk. With an address it serves /srv/www by HTTP, and says
`PEER-OK <what the peer serves as name>` once it has reached its peer. Knows nothing of how it is
booted.
"""

from __future__ import annotations

import gzip
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from guest_disks.kernel import MODULES, Kernel, fetch_kernel
from guest_disks.partition import make_filesystem, mounted, write_table
from guest_disks.tool import run

_BUSYBOX = Path("/bin/busybox")
_MBR_CODE = Path("/usr/lib/syslinux/mbr/mbr.bin")
_MBR_CODE_BYTES = 440
_LABEL = "guestroot"
_PAYLOAD_BYTES = 4 << 20

# extlinux reads neither 64-bit block numbers nor checksummed metadata.
_EXT4_FEATURES = ("-O", "^64bit,^metadata_csum")

_INITRD_INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t sysfs sys /sys
for module in {" ".join(MODULES)}; do
    [ -f /modules/$module.ko ] && $b insmod /modules/$module.ko 2>/dev/null
done
tries=0
until disk=$($b findfs LABEL={_LABEL} 2>/dev/null) || [ $tries -ge 500 ]; do
    tries=$((tries + 1))
    $b usleep 20000
done
$b mount -t ext4 "$disk" /root || echo "NO ROOT DISK" >/dev/ttyS0
$b umount /sys
$b mount --move /dev /root/dev
exec $b switch_root /root /sbin/init
"""

_GUEST_INIT = r"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -o remount,rw / 2>/dev/null
boots=$(($($b cat /var/log/boots 2>/dev/null || echo 0) + 1))
echo $boots >/var/log/boots && $b sync
sum=$($b md5sum /srv/data/payload.bin)
read -r uptime _ </proc/uptime
if [ -s /etc/address ]; then
    $b ip link set lo up
    $b ip link set eth0 up
    $b ip addr add "$($b cat /etc/address)" dev eth0
    $b httpd -p 80 -h /srv/www
fi
echo "BOOT-OK vm=$($b cat /etc/hostname) boots=$boots sum=${sum%% *} uptime=$uptime" >/dev/ttyS0
if [ -s /etc/peer ]; then
    name= peer=$($b cat /etc/peer)
    until [ "$name" ]; do
        # Its wget looks names up, and falls over in a static program.
        name=$(printf 'GET /name HTTP/1.0\r\n\r\n' | $b nc -w 2 "$peer" 80 | $b tail -n 1)
        [ "$name" ] || $b sleep 1
    done
    echo "PEER-OK $name" >/dev/ttyS0
fi
while :; do
    $b sh -i </dev/ttyS0 >/dev/ttyS0 2>&1
    $b sleep 1
done
"""

_LOADER = """SERIAL 0 115200
PROMPT 0
TIMEOUT 1
DEFAULT guest
LABEL guest
 LINUX /boot/vmlinuz
 INITRD /boot/initrd
 APPEND console=ttyS0,115200 quiet loglevel=3 panic=5 random.trust_cpu=on mitigations=off
"""


def build_bootable(
    path: Path,
    size: int = 64 << 20,
    *,
    hostname: str = "guest1",
    payload: bytes | None = None,
    address: str = "",
    peer: str = "",
) -> None:
    """Make `path` a bootable raw disk of `size` bytes (48 MiB at least, for its kernel to fit).

    `payload` becomes /srv/data/payload.bin, whose MD5 the guest prints; 4 MiB drawn from the
    hostname if it is not given. address: of its vmxnet3 card, like 10.9.0.1/24; peer: the address
    of a guest like this one. Raises RuntimeError with the words of the tool that failed.
    """
    if payload is None:
        payload = random.Random(hostname).randbytes(_PAYLOAD_BYTES)
    kernel = fetch_kernel()
    identity = sum(hostname.encode())
    write_table(path, size, "ext4", "dos", identity=identity, bootable=True)
    with path.open("r+b") as disk:
        disk.write(_MBR_CODE.read_bytes()[:_MBR_CODE_BYTES])
    make_filesystem(path, "ext4", identity=identity, label=_LABEL, options=_EXT4_FEATURES)
    # Everything goes in through the mount: a file made of holes cannot be read by extlinux, and
    # `mkfs.ext4 -d` makes holes of zero blocks.
    with mounted(path) as root:
        _fill_root(root, hostname, payload)
        (root / "etc/address").write_text(address)
        (root / "etc/peer").write_text(peer)
        shutil.copyfile(kernel.image, root / "boot/vmlinuz")
        (root / "boot/initrd").write_bytes(_initrd(kernel))
        (root / "boot/syslinux/syslinux.cfg").write_text(_LOADER)
        run("extlinux", "--install", root / "boot/syslinux")


def _fill_root(root: Path, hostname: str, payload: bytes) -> None:
    for folder in ("bin", "sbin", "etc", "dev", "proc", "sys", "tmp", "var/log", "srv/data"):
        (root / folder).mkdir(parents=True)
    for folder in ("boot/syslinux", "home/alice/docs", "srv/www"):
        (root / folder).mkdir(parents=True)
    shutil.copy(_BUSYBOX, root / "bin/busybox")
    for applet in ("sh", "ls", "cat", "mount", "umount", "sync", "echo", "md5sum", "poweroff"):
        (root / "bin" / applet).symlink_to("busybox")
    _write_program(root / "sbin/init", _GUEST_INIT)
    (root / "etc/hostname").write_text(f"{hostname}\n")
    (root / "srv/www/name").write_text(f"{hostname}\n")
    (root / "srv/data/payload.bin").write_bytes(payload)
    (root / "home/alice/docs/report.txt").write_text(f"Report of {hostname}\n" * 5000)
    (root / "home/alice/latest").symlink_to("docs/report.txt")
    (root / "home/alice/Grüße 日本.txt").write_text("ünïcode\n")


def _initrd(kernel: Kernel) -> bytes:
    """A gzipped newc archive that loads the disk drivers and goes over to the root disk."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name in ("bin", "dev", "proc", "sys", "modules", "root"):
            (root / name).mkdir()
        shutil.copy(_BUSYBOX, root / "bin/busybox")
        for module in kernel.modules:
            shutil.copy(module, root / "modules")
        _write_program(root / "init", _INITRD_INIT)
        names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
        archive = subprocess.run(
            ["cpio", "--create", "--format=newc", "--quiet", "--owner=0:0", "--reproducible"],
            cwd=root,
            input="\n".join(names).encode(),
            capture_output=True,
            check=True,
        )
    return gzip.compress(archive.stdout, compresslevel=1, mtime=0)


def _write_program(path: Path, script: str) -> None:
    path.write_text(script)
    os.chmod(path, 0o755)

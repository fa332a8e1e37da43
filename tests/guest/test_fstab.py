"""Lines of /etc/fstab: as util-linux reads them, and whatever a guest may have written there."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backpoint_fusefs.guest.root_view.fstab import (
    LINES_MAX,
    SIZE_MAX,
    FstabEntry,
    parse_fstab,
    unescape,
)

UBUNTU = b"""# /etc/fstab: static file system information.
#
# <file system> <mount point>   <type>  <options>       <dump>  <pass>
/dev/mapper/ubuntu--vg-ubuntu--lv / ext4 errors=remount-ro 0 1
UUID=0d3c1ac2-8f2c-4f4a-9c6d-5f1d1f3c2a11 /boot           ext4    defaults        0       2
UUID="C0FF-EE00"\t/boot/efi       vfat    umask=0077      0       1
/swapfile                                 none            swap    sw              0       0
tmpfs /tmp tmpfs size=1g 0 0
LABEL=My\\040Data /srv/my\\040data//./x ext4 noauto,nofail 0 0  # the data disk
"""


def seen(entry: FstabEntry) -> tuple[str, bytes, str, tuple[str, ...]]:
    """Everything but how the line is called."""
    return entry.source, entry.mount_point, entry.kind, entry.options


def test_an_ordinary_file() -> None:
    """Comments, tabs, quotes, escapes; swap and tmpfs are no storage, and nobody asks for them."""
    parsed = parse_fstab(UBUNTU)
    assert [seen(entry) for entry in parsed.entries] == [
        ("/dev/mapper/ubuntu--vg-ubuntu--lv", b"/", "ext4", ("errors=remount-ro",)),
        ("UUID=0d3c1ac2-8f2c-4f4a-9c6d-5f1d1f3c2a11", b"/boot", "ext4", ("defaults",)),
        ('UUID="C0FF-EE00"', b"/boot/efi", "vfat", ("umask=0077",)),
        ("LABEL=My Data", b"/srv/my data/x", "ext4", ("noauto", "nofail")),
    ]
    assert parsed.notes == ()
    assert parsed.entries[1].named.startswith("/etc/fstab line 5 (UUID=0d3c1ac2-8f2c-4f4a")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"/dev/sda1 /two", "too few fields"),
        (b"word", "too few fields"),
        (b"server:/export /srv nfs4 ro 0 0", "on the network"),
        (b"//server/share /srv cifs ro 0 0", "on the network"),
        (b"server:/x /srv auto ro", "on the network"),
        (b"ceph-admin /srv fuse.ceph ro", "on the network"),
        (b"tank/home /home zfs defaults 0 0", "ZFS"),
        (b"/srv/a /srv/b none bind 0 0", "bind"),
        (b"/srv/a /srv/b auto ro,rbind 0 0", "bind"),
        (b"/dev/sda1 relative ext4", "no plain absolute path"),
        (b"/dev/sda1 /a/../../etc ext4", "no plain absolute path"),
        (b"/dev/sda1 /a\\000b ext4", "no plain absolute path"),
        (b"/dev/sda1 /" + b"n" * 256 + b" ext4", "longer than a path"),
        (b"/dev/sda1 " + b"/name" * 900 + b" ext4", "longer than a path"),
    ],
)
def test_lines_that_are_not_followed_are_named(line: bytes, reason: str) -> None:
    """Each becomes one note, with its number and its reason, and no entry."""
    parsed = parse_fstab(b"\n\n" + line + b"\n")
    assert parsed.entries == ()
    assert len(parsed.notes) == 1
    assert parsed.notes[0].startswith("/etc/fstab line 3 (")
    assert reason in parsed.notes[0]


@pytest.mark.parametrize(
    "line",
    [
        b"/dev/sda2 none swap sw 0 0",
        b"/dev/sda2 swap swap sw 0 0",
        b"proc /proc proc defaults 0 0",
        b"none /run/shm tmpfs rw",
        b"efivarfs /sys/firmware/efi/efivars efivarfs rw",
        b"#UUID=x / ext4",
        b"   # indented",
        b"\t \r",
    ],
)
def test_lines_that_keep_nothing_on_a_disk_are_silent(line: bytes) -> None:
    """No entry, no note."""
    parsed = parse_fstab(line)
    assert (parsed.entries, parsed.notes) == ((), ())


def test_a_label_is_no_server() -> None:
    """Colons and slashes in a LABEL= make no network of it."""
    assert parse_fstab(b"LABEL=a:/b /x ext4\n").entries[0].source == "LABEL=a:/b"


def test_the_last_option_counts() -> None:
    """As with mount."""
    entry = parse_fstab(b"/dev/sda1 / btrfs subvol=/@old,x-y,subvol=@,ro").entries[0]
    assert entry.option("subvol") == "@"
    assert entry.option("subvolid") is None


def test_names_in_notes_do_nothing_to_a_terminal() -> None:
    """Control characters and broken UTF-8 are spelled out, long lines cut."""
    note = parse_fstab(b"\x1b[2Jx\xff \xc2\x9b" + b"y" * 500).notes[0]
    assert note.isprintable()
    assert "\\x1b[2Jx\\xff \\x9b" in note
    assert len(note) < 250


def test_too_many_lines_are_cut() -> None:
    """A file of a million lines costs a thousand."""
    parsed = parse_fstab(b"/dev/sda1 /a ext4\n" * (LINES_MAX + 1))
    assert len(parsed.entries) == LINES_MAX
    assert "more than 1000 lines" in parsed.notes[-1]


def test_too_large_a_file_is_cut_at_a_line() -> None:
    """Half a line would say something else."""
    comment = b"#" * (SIZE_MAX - 20) + b"\n"
    parsed = parse_fstab(comment + b"/dev/sda1 /abc ext4\n" + b"/dev/sda1 /d ext4\n")
    assert parsed.entries == ()
    assert "larger than" in parsed.notes[0]


@given(st.binary(max_size=2000))
def test_any_bytes_are_read(content: bytes) -> None:
    """Nothing raises, and every mount point is a path."""
    for entry in parse_fstab(content).entries:
        names = entry.mount_point.split(b"/")
        assert names[0] == b""
        assert not {b".", b".."}.intersection(names)
        assert entry.mount_point == b"/" or b"" not in names[1:]
        assert b"\0" not in entry.mount_point
        assert entry.named.isprintable()


@given(st.lists(st.sampled_from([*b" \t\r\n\\0147/.#,=ax\xff\0"]), max_size=200))
def test_bytes_with_a_meaning_are_read(content: list[int]) -> None:
    """The same of what is mostly separators, escapes and dots."""
    test_any_bytes_are_read.hypothesis.inner_test(bytes(content))  # type: ignore[attr-defined]


@given(st.binary(max_size=60))
def test_escapes_come_back(name: bytes) -> None:
    """Whatever a name is, written in escapes it is read as it was."""
    escaped = b"".join(
        b"\\%03o" % byte if byte in b" \t\n\\#" or byte > 126 else bytes([byte]) for byte in name
    )
    assert unescape(escaped) == name


FIELD = st.text(st.sampled_from("aZ09-_./\\ \t#'\",:äé漢\u00a0\u2003"), min_size=1, max_size=12)
LINE = st.tuples(
    FIELD.map("/dev/disk/by-label/{}".format) | FIELD.map("LABEL={}".format),
    FIELD.map("/mnt/{}".format).filter(lambda path: ".." not in path.split("/")),
    st.sampled_from(["ext4", "xfs", "auto", "vfat,ext4"]),
    st.none() | FIELD,
)


def mangled(field: str) -> str:
    """With the escapes that fstab(5) asks for, and the backslash's."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\" else char for char in field)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines=st.lists(LINE, min_size=1, max_size=8), blank=st.sampled_from([" ", "\t", " \t "]))
def test_findmnt_reads_the_same(
    lines: list[tuple[str, str, str, str | None]], blank: str, tmp_path: Path
) -> None:
    """util-linux' own reader finds the same sources, mount points, types and options."""
    path = tmp_path / "fstab"
    written = [blank.join(mangled(field) for field in line if field) for line in lines]
    path.write_text("\n".join(["# comment", *written, ""]), encoding="utf-8")
    findmnt = ["findmnt", "--tab-file", str(path), "-J", "-o", "SOURCE,TARGET,FSTYPE,OPTIONS"]
    shown = subprocess.run(findmnt, check=True, capture_output=True, env={"LC_ALL": "C.UTF-8"})
    theirs = [
        (
            line["source"],
            "/" + "/".join(name for name in line["target"].split("/") if name not in ("", ".")),
            line["fstype"],
            line["options"] or "",
        )
        for line in json.loads(shown.stdout)["filesystems"]
    ]
    ours = [
        (entry.source, entry.mount_point.decode(), entry.kind, ",".join(entry.options))
        for entry in parse_fstab(path.read_bytes()).entries
    ]
    assert ours == theirs

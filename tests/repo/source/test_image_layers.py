"""Images that name other files: what qemu-img makes is followed, an attacker's are refused."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from backpoint_repo.errors import SourceError
from backpoint_repo.source.detect import open_image
from backpoint_repo.source.image_layers import plan_layers
from backpoint_repo.source.qemu_nbd import link_layers

SECRET = b"root:secret".ljust(1 << 20, b"!")


def qemu_img(folder: Path, *arguments: str) -> None:
    subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, cwd=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The image's own folder; a file nobody may read lies next to it."""
    (tmp_path / "secret").write_bytes(SECRET)
    own = tmp_path / "own"
    own.mkdir()
    return own


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        open_image(path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def first_bytes(path: Path, count: int = 16) -> bytes:
    with closing(open_image(path)) as source:
        data = bytearray(count)
        source.read_into(0, memoryview(data))
    return bytes(data)


def descriptor(folder: Path, *extents: str, settings: str = "") -> Path:
    path = folder / "disk.vmdk"
    lines = ["# Disk DescriptorFile", "version=1", "CID=12345678", "parentCID=ffffffff"]
    lines += ['createType="monolithicFlat"', settings, *extents]
    path.write_text("\n".join(lines) + "\n")
    return path


def overlay(folder: Path, backing: str, *extra: str) -> Path:
    """A qcow2 whose header says exactly `backing`, whether that exists or not."""
    qemu_img(folder, "create", "-f", "qcow2", "-u", "-b", backing, *extra, "top.qcow2", "1M")
    return folder / "top.qcow2"


@pytest.mark.parametrize("absolute", [False, True])
def test_backing_file_in_own_folder(folder: Path, absolute: bool) -> None:
    (folder / "base.raw").write_bytes(SECRET)
    base = str(folder / "base.raw") if absolute else "base.raw"
    assert first_bytes(overlay(folder, base, "-F", "raw")) == SECRET[:16]


@pytest.mark.parametrize(
    "backing",
    [
        "../secret",
        "{parent}/secret",
        "link",
        "nbd:localhost:1",
        "json:{{}}",
        "missing",
        ".",
        "fifo",
    ],
)
def test_backing_file_elsewhere(folder: Path, backing: str) -> None:
    (folder / "link").symlink_to("../secret")
    os.mkfifo(folder / "fifo")
    assert "it n" in refusal(overlay(folder, backing.format(parent=folder.parent), "-F", "raw"))


def test_backing_file_of_unsaid_format(folder: Path) -> None:
    (folder / "base.raw").write_bytes(SECRET)
    path = overlay(folder, "base.raw", "-F", "raw")
    data = bytearray(path.read_bytes())
    at = data.index(bytes.fromhex("e2792aca"))
    data[at : at + 4] = b"\x01\x02\x03\x04"  # an unknown extension, to be skipped
    path.write_bytes(data)
    assert "qemu-img rebase -u -F" in refusal(path)


def test_raw_backing_file_is_not_probed(folder: Path) -> None:
    """The guest wrote a qcow2 header into its raw disk; the overlay says raw, so raw it is."""
    forged = overlay(folder, "../secret", "-F", "raw").rename(folder / "base.raw")
    assert first_bytes(overlay(folder, "base.raw", "-F", "raw"), 4) == forged.read_bytes()[:4]


def test_chain_is_refused_at_depth(folder: Path) -> None:
    overlay(folder, "../secret", "-F", "raw").rename(folder / "middle.qcow2")
    assert "middle.qcow2" in refusal(overlay(folder, "middle.qcow2", "-F", "qcow2"))


def test_loop_of_backing_files(folder: Path) -> None:
    overlay(folder, "loop.qcow2", "-F", "qcow2").rename(folder / "loop.qcow2")
    assert "stand on each other" in refusal(folder / "loop.qcow2")


def test_external_data_file(folder: Path) -> None:
    options = "data_file=../stolen,data_file_raw=on"
    qemu_img(folder, "create", "-f", "qcow2", "-o", options, "top.qcow2", "1M")
    assert "external file" in refusal(folder / "top.qcow2")


@pytest.mark.parametrize("cut", [4, 71, 80, 103])
def test_cut_qcow2(folder: Path, cut: int) -> None:
    path = overlay(folder, "base.raw", "-F", "raw")
    os.truncate(path, cut)
    assert "cut short" in refusal(path)


@pytest.mark.parametrize(
    "extent",
    [
        'RW 2048 FLAT "../secret" 0',
        'RW 2048 FLAT "{parent}/secret" 0',
        'RW 2048 FLAT "link" 0',
        'RW 2048 FLAT "nbd:localhost:1" 0',
        'RW 2048 FLAT "missing" 0',
        'RW\t2048\tSPARSE\t"../secret"',
        'RW 2048 VMFSRDM "flat"',
        "RW 2048 ZERO",
        'RW 2049 FLAT "flat" 0',
        'RW 2048 FLAT "flat" 1',
        'RDONLY 2048 FLAT "flat" 0',
        'rw 2048 FLAT "flat" 0',
        '\x0bRW 2048 FLAT "../secret" 0',
        'RW 2048 FLAT "flat" 0 RW 2048 FLAT "../secret" 0',
        "",
    ],
)
def test_vmdk_extents_refused(folder: Path, extent: str) -> None:
    (folder / "link").symlink_to("../secret")
    (folder / "flat").write_bytes(SECRET)
    refusal(descriptor(folder, extent.format(parent=folder.parent)))


def test_vmdk_flat_extent_may_hold_anything(folder: Path) -> None:
    (folder / "image").write_bytes(b"KDMV".ljust(1 << 20, b"\0"))
    path = descriptor(folder, 'RW 2048 FLAT "image" 0')
    assert first_bytes(path) == b"KDMV".ljust(16, b"\0")


def test_vmdk_extent_that_is_a_descriptor_in_disguise(folder: Path) -> None:
    """qemu takes a sparse header without capacity for a descriptor, and follows what it names."""
    inner = b'# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
    inner += b'RW 2048 FLAT "%s" 0\n' % bytes(folder.parent / "secret")
    header = bytearray(512)
    header[:4] = b"KDMV"
    header[28:36] = (1).to_bytes(8, "little")
    header[36:44] = (20).to_bytes(8, "little")
    (folder / "extent").write_bytes(bytes(header) + inner.ljust(20 * 512, b"\0"))
    assert "no capacity" in refusal(folder / "extent")
    assert "no capacity" in refusal(descriptor(folder, 'RW 2048 SPARSE "extent"'))


def test_vmdk_parent_elsewhere(folder: Path) -> None:
    (folder / "flat").write_bytes(SECRET)
    extent = 'RW 2048 FLAT "flat" 0'
    for setting in ['parentFileNameHint="../secret"', 'parentFileNameHint = "nbd:localhost:1"']:
        refusal(descriptor(folder, extent, settings=setting))
    assert "does not name it" in refusal(descriptor(folder, extent, settings="parentCID=00000001"))


def test_vmdk_half_a_disk(folder: Path) -> None:
    split = "subformat=twoGbMaxExtentSparse"
    qemu_img(folder, "create", "-f", "vmdk", "-o", split, "disk.vmdk", "1M")
    assert "name the disk's descriptor" in refusal(folder / "disk-s001.vmdk")
    (folder / "esx-delta.vmdk").write_bytes(b"COWD".ljust(2048, b"\0"))
    assert "name the disk's descriptor" in refusal(folder / "esx-delta.vmdk")


def test_differencing_vhd(folder: Path) -> None:
    qemu_img(folder, "create", "-f", "vpc", "disk.vhd", "1M")
    data = bytearray((folder / "disk.vhd").read_bytes())
    data[len(data) - 512 + 63] = 4
    (folder / "disk.vhd").write_bytes(data)
    assert "differencing" in refusal(folder / "disk.vhd")


def test_names_no_parser_likes(folder: Path) -> None:
    """Commas, quotes, colons, newlines and bytes that are no UTF-8, in image and backing file."""
    name = os.fsdecode(b"json:{a,,b=\"c'\n\xff.img")
    (folder / "base.raw").write_bytes(SECRET)
    path = overlay(folder, "base.raw", "-F", "raw").rename(folder / name)
    assert first_bytes(path) == SECRET[:16]


def test_image_that_changes_after_the_check(folder: Path) -> None:
    """qemu is told the chain; what the header says by then does not count."""
    (folder / "base.raw").write_bytes(SECRET)
    qemu_img(folder, "create", "-f", "qcow2", "plain.qcow2", "1M")
    layer = plan_layers(str(folder / "plain.qcow2"), "qcow2")
    assert layer.backing is None
    overlay(folder, "../secret", "-F", "raw").rename(folder / "plain.qcow2")
    links = folder / "links"
    links.mkdir()
    node = link_layers(layer, str(links))
    info = ["qemu-img", "map", "--output=json", "json:" + json.dumps(node)]
    shown = subprocess.run(info, check=True, capture_output=True, text=True).stdout
    assert "secret" not in shown
    assert json.loads(shown)[0]["depth"] == 0

"""What QEMU makes of our descriptors."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from backpoint_repo.errors import UsageError
from backpoint_repo.vmdk_descriptor import describe_flat_disk


def _info(path: Path) -> dict[str, object]:
    command = ["qemu-img", "info", "--output=json", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def _vmdk(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    descriptor = folder / "disk.vmdk"
    descriptor.write_bytes(describe_flat_disk(name, len(content), b"point"))
    return descriptor


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4096, (3 << 20) + 100])
def test_qemu_reads_the_flat_file_through_the_descriptor(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    descriptor = _vmdk(tmp_path, "disk0-flat.vmdk", content)
    rounded = max(512, -(-size // 512) * 512)
    assert _info(descriptor)["virtual-size"] == rounded
    raw = tmp_path / "padded.raw"
    raw.write_bytes(content + bytes(rounded - size))
    command = ["qemu-img", "compare", "-f", "vmdk", "-F", "raw", str(descriptor), str(raw)]
    subprocess.run(command, check=True, capture_output=True)


def test_qemu_knows_the_type_and_the_content_id(tmp_path: Path) -> None:
    info = _info(_vmdk(tmp_path, "Büro 1-flat.vmdk", bytes(1 << 20)))
    data = info["format-specific"]["data"]  # type: ignore[index]
    assert data["create-type"] == "vmfs"
    assert data["parent-cid"] == 0xFFFFFFFF
    text = (tmp_path / "disk.vmdk").read_text()
    assert data["cid"] == int(re.findall(r"^CID=(\w+)$", text, re.M)[0], 16)


def test_the_long_content_id_ends_in_the_short_one_and_follows_the_identity() -> None:
    text = describe_flat_disk("a", 1 << 30, b"one").decode()
    short = re.findall(r"^CID=(\w+)$", text, re.M)[0]
    assert re.findall(r'longContentID = "(\w{32})"', text)[0].endswith(short)
    assert re.search(r'uuid = "60 00 c2 9(\w) (\w\w ){3}\w\w-(\w\w ){7}\w\w"', text)
    assert text == describe_flat_disk("a", 1 << 30, b"one").decode()
    assert text != describe_flat_disk("a", 1 << 30, b"two").decode()


@pytest.mark.parametrize("name", ["", 'a"b', "a\nb", "a/b", "x" * 512, "bad\udcff"])
def test_a_name_that_no_descriptor_can_hold_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        describe_flat_disk(name, 512, b"")

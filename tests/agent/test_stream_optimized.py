"""streamOptimized VMDKs: what qemu-img and our own writer make is read to the byte, and whatever is
done to a stream, it never yields other bytes without an error."""

from __future__ import annotations

import random
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backpoint_agent.restoring.stream_writer import GRAIN_SIZE, pack_grain, stream_vmdk
from backpoint_agent.transport.stream_optimized import StreamOptimized
from backpoint_repo.errors import SourceError

Maker = Callable[[bytes, Path], bytes]


def by_qemu(disk: bytes, folder: Path) -> bytes:
    """Its tables come before all grains, and it ends without an end-of-stream marker."""
    raw, vmdk = folder / "disk.raw", folder / "disk.vmdk"
    raw.write_bytes(disk)
    options = ["-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized"]
    subprocess.run(["qemu-img", "convert", *options, raw, vmdk], check=True)
    return vmdk.read_bytes()


def by_us(disk: bytes, folder: Path) -> bytes:
    """As ESXi does it: tables behind their grains, directory and footer at the end."""
    numbers = range(-(-len(disk) // GRAIN_SIZE))
    grains = ((n, pack_grain(n, disk[n * GRAIN_SIZE : (n + 1) * GRAIN_SIZE])) for n in numbers)
    return b"".join(stream_vmdk(len(disk), 0x1234, grains))


def a_disk(size: int, share: float, seed: int = 7) -> bytes:
    """Grains of half noise, half zeros; `share` of them, the others all zero."""
    chance = random.Random(seed)
    disk = bytearray(size)
    for start in range(0, size, GRAIN_SIZE):
        if chance.random() < share:
            end = min(start + GRAIN_SIZE // 2, size)
            disk[start:end] = chance.randbytes(end - start)
    return bytes(disk)


SMALL = a_disk(1 << 20, 0.5)


def reader(stream: bytes, piece: int = 1 << 20) -> Callable[[int], bytes]:
    """At most `piece` bytes a time, as a network would."""
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        taken = stream[at : at + min(count, piece)]
        at += len(taken)
        return taken

    return read


def content(stream: bytes, piece: int = 1 << 20, size: int | None = None) -> bytes:
    """The disk that the stream holds. Raises SourceError, also where it has another size."""
    parsed = StreamOptimized("[ds] web/web.vmdk", reader(stream, piece))
    if size not in (None, parsed.size):
        raise SourceError("whoever asked for the disk knows its size")
    disk = bytearray(parsed.size)
    for grain in parsed.grains():
        disk[grain.offset : grain.offset + len(grain.data)] = grain.data
    assert len(disk) == parsed.size
    return bytes(disk)


@pytest.mark.parametrize("make", [by_qemu, by_us])
@pytest.mark.parametrize(
    ("size", "share"),
    [
        (512, 1.0),
        (GRAIN_SIZE, 1.0),
        (GRAIN_SIZE + 512, 1.0),
        (3 * GRAIN_SIZE - 512, 1.0),
        (4 << 20, 0.0),
        (4 << 20, 1.0),
        ((33 << 20) + 1536, 0.2),
        ((65 << 20) + 512, 0.01),
    ],
)
def test_what_others_write_is_read_to_the_byte(
    make: Maker, size: int, share: float, tmp_path: Path
) -> None:
    """Sparse, full, empty, of odd size, of several grain tables; by both layouts."""
    disk = a_disk(size, share)
    assert content(make(disk, tmp_path)) == disk


def test_qemu_reads_the_layout_with_tables_at_the_end_alike(tmp_path: Path) -> None:
    """What we take for ESXi's layout is one for others too."""
    disk = a_disk((33 << 20) + 1536, 0.1)
    (tmp_path / "ours.vmdk").write_bytes(by_us(disk, tmp_path))
    convert = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw"]
    subprocess.run([*convert, tmp_path / "ours.vmdk", tmp_path / "back.raw"], check=True)
    assert (tmp_path / "back.raw").read_bytes() == disk


@pytest.mark.parametrize("piece", [1, 511, 4097])
def test_pieces_of_any_size_make_the_same_disk(piece: int, tmp_path: Path) -> None:
    """The network decides how much comes at once."""
    disk = a_disk(2 * GRAIN_SIZE, 0.6)
    assert content(by_us(disk, tmp_path), piece) == disk


def test_a_stream_that_is_cut_anywhere_is_an_error(tmp_path: Path) -> None:
    """With the tables at the end, no byte is dispensable."""
    stream = by_us(SMALL, tmp_path)
    cuts = [*range(0, len(stream), 512), *range(511, len(stream), 512 * 7)]
    for cut in cuts:
        with pytest.raises(SourceError, match="damaged or cut short"):
            content(stream[:cut])


def test_qemus_stream_may_lose_only_what_says_nothing(tmp_path: Path) -> None:
    """With the tables first, padding behind the last grain may be cut, and nothing else."""
    disk = SMALL[:-GRAIN_SIZE] + random.Random(1).randbytes(GRAIN_SIZE)
    stream = by_qemu(disk, tmp_path)
    needed = len(stream.rstrip(b"\0"))
    for cut in range(0, len(stream), 512):
        if cut < needed:
            with pytest.raises(SourceError):
                content(stream[:cut])
        else:
            assert content(stream[:cut]) == disk


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Bytes overwritten, taken out, doubled or moved; most near a sector's start, where the
    markers are."""
    kind = draw(st.sampled_from(["set", "flip", "cut out", "double", "swap"]))
    place, other = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    inner = draw(st.one_of(st.integers(0, 16), st.integers(0, 511)))
    byte = draw(st.integers(1, 255))
    sectors = draw(st.integers(1, 5))

    def damage(stream: bytes) -> bytes:
        changed = bytearray(stream)
        at = int(place * (len(stream) - 1)) // 512 * 512
        end = at + sectors * 512
        if kind == "set":
            changed[at + inner] = byte
        elif kind == "flip":
            changed[at + inner] ^= byte
        elif kind == "cut out":
            del changed[at:end]
        elif kind == "double":
            changed[at:at] = stream[at:end]
        else:
            to = int(other * (len(stream) - 1)) // 512 * 512
            changed[at : at + 512], changed[to : to + 512] = (
                stream[to : to + 512],
                stream[at : at + 512],
            )
        return bytes(changed)

    return damage


class Streams(tuple[bytes, bytes]):
    """SMALL in both layouts; not printed when an example is."""

    def __repr__(self) -> str:
        return "streams"


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Streams:
    """SMALL by qemu and by us."""
    folder = tmp_path_factory.mktemp("streams")
    return Streams((by_qemu(SMALL, folder), by_us(SMALL, folder)))


@settings(max_examples=400, deadline=None)
@given(which=st.integers(0, 1), damage=st.lists(damages(), min_size=1, max_size=3))
def test_damage_never_passes_for_another_disk(
    streams: Streams, which: int, damage: list[Callable[[bytes], bytes]]
) -> None:
    """Whatever is changed: an error or the same bytes."""
    stream = streams[which]
    for change in damage:
        stream = change(stream)
    try:
        disk = content(stream, size=len(SMALL))
    except SourceError:
        return
    assert disk == SMALL


@settings(max_examples=150, deadline=None)
@given(
    head=st.binary(max_size=80),
    which=st.integers(0, 1),
    fields=st.lists(
        st.tuples(st.integers(0, 75), st.sampled_from([0, 1, 0x7F, 0x80, 0xFF])), max_size=6
    ),
)
def test_a_forged_header_is_refused_or_harmless(
    streams: Streams, which: int, head: bytes, fields: list[tuple[int, int]]
) -> None:
    """Absurd numbers in the header cost no memory and end in an error."""
    stream = bytearray(streams[which])
    for at, value in fields:
        stream[at] = value
    for forged in (bytes(stream), head + bytes(stream[len(head) :]), head):
        try:
            assert content(forged, size=len(SMALL)) == SMALL
        except SourceError:
            continue


def header(stream: bytes, **fields: int) -> bytes:
    """The stream with other values in its header."""
    places = {"version": (4, "I"), "flags": (8, "I"), "capacity": (12, "Q"), "grain": (20, "Q"),
              "entries": (44, "I"), "directory": (56, "Q"), "head": (64, "Q"),
              "packing": (77, "H")}  # fmt: skip
    changed = bytearray(stream)
    for name, value in fields.items():
        at, kind = places[name]
        struct.pack_into(f"<{kind}", changed, at, value)
    return bytes(changed)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"version": 4}, "no streamOptimized"),
        ({"flags": 3}, "no streamOptimized"),
        ({"packing": 0}, "has values"),
        ({"entries": 1024}, "has values"),
        ({"grain": 0}, "grains have 0 sectors"),
        ({"grain": 96}, "grains have 96 sectors"),
        ({"grain": 1 << 40}, "sectors"),
        ({"capacity": 0}, "disk has 0 sectors"),
        ({"capacity": 1 << 60}, "disk has"),
        ({"head": 0}, "head has 0"),
        ({"head": 1 << 50}, "head has"),
        ({"directory": 0}, "not in its head"),
        ({"directory": 1 << 62}, "not in its head"),
    ],
)
def test_a_header_of_another_kind_is_refused(
    streams: Streams, fields: dict[str, int], said: str
) -> None:
    """Every field that sizes something is checked before it is used."""
    with pytest.raises(SourceError, match=said):
        content(header(streams[0], **fields))


def with_grain(deflated: bytes, start: int = 0) -> Iterator[bytes]:
    """A stream of one grain as given, its table and all that follows right."""
    packed = struct.pack("<QI", start, len(deflated)) + deflated
    yield from stream_vmdk(1 << 20, 1, [(0, packed + bytes(-len(packed) % 512))])


@pytest.mark.parametrize(
    ("deflated", "said"),
    [
        (zlib.compress(bytes(64 << 20)), "has 65537 bytes|not one whole"),
        (zlib.compress(bytes(GRAIN_SIZE - 1)), "has 65535 bytes"),
        (zlib.compress(bytes(GRAIN_SIZE)) + b"more", "not one whole"),
        (zlib.compress(bytes(GRAIN_SIZE))[:-1], "not one whole"),
        (b"no zlib at all", "cannot be inflated"),
        (bytes(3 * GRAIN_SIZE), "deflated bytes"),
    ],
)
def test_a_grain_is_one_deflated_piece_of_the_grains_size(deflated: bytes, said: str) -> None:
    """A bomb, too short, too long, cut, no zlib, too much of it."""
    with pytest.raises(SourceError, match=said):
        content(b"".join(with_grain(deflated)))


@pytest.mark.parametrize("start", [1, 64, 2048, 1 << 40])
def test_a_grain_belongs_on_a_grains_place_in_the_disk(start: int) -> None:
    """Askew or behind the disk's end is an error."""
    with pytest.raises(SourceError, match="belongs at sector"):
        content(b"".join(with_grain(zlib.compress(bytes(GRAIN_SIZE)), start)))


def test_a_moved_grain_is_found_by_its_table() -> None:
    """Grain 0 that calls itself grain 3 is whole in itself; its table knows better."""
    with pytest.raises(SourceError, match="grain table"):
        content(b"".join(with_grain(zlib.compress(bytes(GRAIN_SIZE)), 3 * 128)))


def test_an_error_of_the_source_comes_through() -> None:
    """What the connection says is what the reader hears."""

    def broken(_: int) -> bytes:
        raise SourceError("the connection was cut")

    with pytest.raises(SourceError, match="the connection was cut"):
        StreamOptimized("disk", broken)

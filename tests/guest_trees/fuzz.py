"""Fuzzing parsers: each seed changes a sound image, and a child process walks what came of it.

    python -m guest_trees.fuzz --kind ext4 --seeds 0:200

Decides what a parser may do to survive: refuse. To crash, to hang, to run out of memory, to raise
what is no GuestError, or to break the contract, is printed with its seed; so is what is odd, and no
fault. What a seed does depends on the sound image too, in which the driver's times and places
differ: --base keeps one.
"""

from __future__ import annotations

import argparse
import collections
import faulthandler
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from backpoint_fusefs.guest.filesystem import VolumeImage
from backpoint_fusefs.guest.parsers.open_filesystem import OpenFilesystem, load_parser
from guest_trees.bounded_walk import BoundedWalk
from guest_trees.file_image import FileImage
from guest_trees.fuzz_bases import BASES
from guest_trees.mutations import BLOCK, MutatedImage, Mutation, metadata_blocks, plan_mutation

_MEMORY_MAX: Final = 1 << 30
"""Bytes of address space that a walk may add to what the process has."""
_CPU_MAX_S: Final = 20
_CLOCK_MAX_S: Final = 90
_FAULTS: Final = ("broken", "defect", "slow", "out of memory", "crashed", "timed out")


@dataclass(frozen=True)
class Survival:
    """outcome: "clean: ...", "refused: ...", or what is wrong with the parser (see `is_fault`)."""

    outcome: str
    mutation: str
    cpu_s: float
    memory: int

    @property
    def is_fault(self) -> bool:
        return self.outcome.startswith(_FAULTS)


class Fuzz:
    """A sound image and its parser; a mutated walk for each seed."""

    def __init__(self, kind: str, base: Path) -> None:
        self._path = base
        self._open = load_parser(BASES[kind].parser, streams=True)
        self._blocks = blocks_of_interest(base, self._open)

    def mutation(self, seed: int) -> Mutation:
        image = FileImage(self._path)
        try:
            return plan_mutation(image, self._blocks, seed)
        finally:
            image.close()

    def survives(self, seed: int, timeout_s: float = _CLOCK_MAX_S) -> Survival:
        """timeout_s: of the clock; the walk may use 20 s of a CPU."""
        return walk_in_child(self._path, self.mutation(seed), self._open, timeout_s)

    def sound(self) -> Survival:
        """What becomes of the image as it is."""
        nothing = Mutation("nothing", (), self._path.stat().st_size)
        return walk_in_child(self._path, nothing, self._open, _CLOCK_MAX_S)


def blocks_of_interest(base: Path, open_filesystem: OpenFilesystem) -> list[int]:
    """The blocks that look like metadata among those which the parser reads, contents left out."""
    image = FileImage(base)
    traced = _TracedImage(image)
    BoundedWalk(traced).run(open_filesystem, read=False)
    image.close()
    return [offset for offset in metadata_blocks(base) if offset in traced.blocks]


class _TracedImage:
    def __init__(self, image: FileImage) -> None:
        self._image = image
        self.size = image.size
        self.blocks: set[int] = set()

    def read(self, offset: int, length: int) -> bytes:
        self.blocks.update(range(offset // BLOCK * BLOCK, offset + length, BLOCK))
        return self._image.read(offset, length)


def walk_in_child(
    base: Path,
    mutation: Mutation,
    open_filesystem: OpenFilesystem,
    timeout_s: float,
    cpu_max_s: int = _CPU_MAX_S,
) -> Survival:
    """A BoundedWalk over the mutated image at `base`, in a process of its own."""
    reader, writer = os.pipe()
    # An exec would import everything again for each of thousands of seeds.
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            with open(writer, "w", encoding="utf-8") as tell:
                _limit(cpu_max_s, tell)
                _walk(MutatedImage(FileImage(base), mutation), open_filesystem, tell)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    end = time.monotonic() + timeout_s
    said = bytearray()
    while (left := end - time.monotonic()) > 0 and select.select([reader], [], [], left)[0]:
        piece = os.read(reader, 1 << 16)
        if not piece:
            break
        said += piece
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    _, status, usage = os.wait4(child, 0)
    outcome = _outcome(os.waitstatus_to_exitcode(status), said.decode(errors="replace"))
    cpu_s = usage.ru_utime + usage.ru_stime
    return Survival(outcome, mutation.description, cpu_s, usage.ru_maxrss << 10)


def _outcome(code: int, said: str) -> str:
    if code == 0:
        return said
    # faulthandler's words: the innermost frame is in the first line that names a file.
    frames = [line.strip() for line in said.splitlines() if line.strip().startswith("File")]
    where = "; ".join(frame.rsplit("/", 1)[-1] for frame in frames[:4])
    if -code in (signal.SIGKILL, signal.SIGXCPU):
        return f"timed out: {where}"
    return f"crashed signal {-code}: {where}"


def _limit(cpu_max_s: int, tell: IO[str]) -> None:
    faulthandler.enable(tell)
    faulthandler.register(signal.SIGXCPU, tell, all_threads=False, chain=True)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + _MEMORY_MAX, has + _MEMORY_MAX))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_max_s, cpu_max_s + 2))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _walk(image: VolumeImage, open_filesystem: OpenFilesystem, tell: IO[str]) -> None:
    walk = BoundedWalk(image)
    try:
        walk.run(open_filesystem, read=True)
        tell.write(walk.outcome())
    except MemoryError:
        tell.write("out of memory")


def parser_survives(kind: str, path: Path, seed: int, timeout_s: float = _CLOCK_MAX_S) -> Survival:
    """One seed on the sound image at `path`, as `make` of its FuzzBase makes it."""
    return Fuzz(kind, path).survives(seed, timeout_s)


def main(words: Sequence[str]) -> int:
    """1 where a parser did what it may not."""
    asked = _arguments(words)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        base = asked.base or Path(scratch) / asked.kind
        if not base.exists():
            BASES[asked.kind].make(base)
        fuzz = Fuzz(asked.kind, base)
        sound = fuzz.sound()
        print(f"sound: {sound.outcome} ({sound.cpu_s:.2f} s, {sound.memory >> 20} MiB)")
        if not sound.outcome.startswith("clean"):
            return 1
        faults = 0
        counts: collections.Counter[str] = collections.Counter()
        longest, largest = sound.cpu_s, sound.memory
        first, last = (int(number) for number in asked.seeds.split(":"))
        for seed in range(first, last):
            found = fuzz.survives(seed)
            counts[found.outcome.split(":")[0]] += 1
            longest, largest = max(longest, found.cpu_s), max(largest, found.memory)
            faults += found.is_fault
            if found.is_fault or found.outcome.startswith("odd"):
                print(f"{seed:6} {found.cpu_s:5.1f} s  {found.outcome}\n       [{found.mutation}]")
            elif asked.verbose:
                print(f"{seed:6} {found.cpu_s:5.1f} s  {found.outcome}")
            sys.stdout.flush()
        print(", ".join(f"{number} {word}" for word, number in counts.most_common()))
        print(f"most: {longest:.1f} s CPU, {largest >> 20} MiB resident")
    return 1 if faults else 0


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="guest_trees.fuzz", description=__doc__)
    parser.add_argument("--kind", required=True, choices=sorted(BASES))
    parser.add_argument("--seeds", default="0:200", metavar="FIRST:END")
    parser.add_argument("--base", type=Path, help="the sound image; made where it is not there")
    parser.add_argument("--verbose", action="store_true", help="each seed's outcome")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A layer of a disk: the blocks that a session wrote between two cuts. What reading needs of it.

What lies below a layer shows where the layer holds nothing, and only before `below_end`: a disk
that was made shorter and longer again is zeros there. Which layers make a disk is for the stack.
"""

from __future__ import annotations

from backpoint_fusefs.live.errors import SessionDamaged
from backpoint_fusefs.live.overlay.block_set import BLOCK, BlockSet
from backpoint_fusefs.live.overlay.data_file import DataFile
from backpoint_fusefs.live.overlay.layer_files import LayerFiles
from backpoint_fusefs.live.overlay.log_record import DiskSizes
from backpoint_fusefs.live.overlay.map_snapshot import MapSnapshot


class Layer:
    """Held blocks are whole in `data`, which is at least as long as the disk in whole blocks.

    cut: the cut that ended it, 0 while it is written to; after that nothing changes any more.
    """

    def __init__(
        self, files: LayerFiles, data: DataFile, held: BlockSet, sizes: DiskSizes, cut: int
    ) -> None:
        self.files = files
        self.data = data
        self.held = held
        self.size, self.below_end = sizes
        self.cut = cut

    @property
    def allocated(self) -> int:
        """Bytes it takes on disk."""
        return self.data.allocated


def open_cut_layer(files: LayerFiles, snapshot: MapSnapshot) -> Layer:
    """Raises SessionDamaged, OSError."""
    try:
        data = DataFile.open(files.data, writable=False)
    except FileNotFoundError:
        raise SessionDamaged(
            f"{files.data} is missing: commit again, or else discard the session"
        ) from None
    if data.length < whole_blocks(snapshot.sizes.size):
        raise SessionDamaged(f"{files.data} is shorter than it was: discard the session")
    return Layer(files, data, snapshot.held, snapshot.sizes, snapshot.cut)


def blocks_of(size: int) -> int:
    """Blocks that hold `size` bytes."""
    return -(-size // BLOCK)


def whole_blocks(size: int) -> int:
    """Bytes of the blocks that hold `size` bytes."""
    return -(-size // BLOCK) * BLOCK

"""btrfs, read without the kernel: nodes, trees, chunks, extents, subvolumes.

Format: Linux include/uapi/linux/btrfs_tree.h; what is refused follows fs/btrfs/tree-checker.c.
"""

"""Our own reader of ext2, ext3 and ext4. Why not the libraries: pytsk3 needs 3.8 s to open a folder
of 100,000 entries (quadratic), knows no xattrs and no device numbers; dissect.extfs mis-places
unwritten extents behind holes; neither replays a journal."""

"""What a session wrote on a disk, over what the point holds: sparse layers and their log."""

"""FAT12, FAT16, FAT32 and exFAT, read by their own tables.

The Sleuth Kit writes `^` for what is not ASCII in a short name, walks the whole tree to list one
folder whose parent it has not seen, and skips silently what it takes for no entry.
"""

"""ISO 9660 with Rock Ridge or Joliet, read by its own records.

The Sleuth Kit reads the whole tree when it opens one, compares every file of a folder with every
file of the disc, knows no Rock Ridge links, and shows a file of several extents as its first one.
"""

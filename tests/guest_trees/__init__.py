"""Guest filesystems full of awkward cases, and the walk that compares two views of one of them.

The oracle is always the real driver: what it shows of a disk is what we must show.
"""

"""NTFS, read by its own tables; compressed content is decoded by The Sleuth Kit.

The Sleuth Kit lists no folder before it has read the whole master file table (1 GiB for a million
files: it looks for deleted ones), compares every name of a folder with every other (3.8 s for
100,000), loses names that are no text, and does not say where a file's valid data ends.
"""

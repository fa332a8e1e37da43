"""Guests in the mount: their files by inode number, for the event loop.

What is blocking, and serves commands as well, lies beside this folder.
"""

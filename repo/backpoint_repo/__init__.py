"""The repository: bytes, keys and a store. Synchronous; knows no trio, FUSE or VMware."""

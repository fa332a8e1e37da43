"""The guest's own files: volumes found on a point's disks, their filesystems, and the view that the
guest has of them. All parsing runs in sandboxed worker processes (`worker/`)."""

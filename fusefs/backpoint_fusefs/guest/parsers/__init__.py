"""Readers of guest filesystems and disk layouts. They see hostile bytes, so they run only inside a
sandboxed worker; they know no repository, no mount and no event loop."""

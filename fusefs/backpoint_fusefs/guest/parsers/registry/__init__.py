"""The Windows registry, as far as drive letters need it."""

"""Which points are kept, and how the others go."""

"""What a booting machine reads: recorded, kept for the next boot, fetched ahead by it."""

"""The guests of two points, file by file."""

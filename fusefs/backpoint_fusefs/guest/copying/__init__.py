"""Guest files into a folder or a stream."""

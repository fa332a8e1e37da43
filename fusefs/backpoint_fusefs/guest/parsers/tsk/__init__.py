"""HFS+, read by The Sleuth Kit through pytsk3."""

"""What `backpoint live` can be told to do: a module for each word."""

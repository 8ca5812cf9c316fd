"""Objects taken from store to store, also while they are written."""

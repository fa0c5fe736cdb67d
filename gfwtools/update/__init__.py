"""One ``update``: from the sources to files that the daemons have read."""

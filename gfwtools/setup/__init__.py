"""``bootstrap`` and ``teardown``: set up a host, and undo that."""

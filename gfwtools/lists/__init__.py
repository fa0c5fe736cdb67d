"""Pure: the bytes of a list -> a :class:`~gfwtools.lists.policy.Policy`. This is the public library."""

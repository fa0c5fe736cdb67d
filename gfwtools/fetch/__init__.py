"""A source (a URL or a path) -> the bytes of a list."""

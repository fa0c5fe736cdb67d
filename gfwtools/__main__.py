"""``python -m gfwtools``."""

from gfwtools.cli import main

main()

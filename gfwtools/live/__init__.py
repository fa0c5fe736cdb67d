"""What is happening on this host? The chain from a name to its site, link by link.

``link`` is the data and the verdict; ``dns`` asks resolvers, ``wire`` is for asking many times; ``kernel`` asks the
kernel; ``plumbing`` judges what it said; ``probe`` puts the chain of a name together; ``address`` says what becomes of
an address.
"""

from gfwtools.live.link import Chain, Link, LinkState, first_broken

__all__ = ["Chain", "Link", "LinkState", "first_broken"]

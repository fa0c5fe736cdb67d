"""What is happening on this host? The chain from a name to its site, link by link.

``link`` is the data and the verdict; ``plumbing`` judges what the kernel says; ``chain`` puts the links of a name
together; ``address`` shows how an address is handled; ``host`` has every piece of the host; ``status`` is the data of
one screen; ``trace`` follows packets.
"""

from gfwtools.diagnose.link import Chain, Link, LinkState, first_broken

__all__ = ["Chain", "Link", "LinkState", "first_broken"]

"""Send the domains of gfwlist through a WireGuard tunnel and everything else directly.

The library compiles lists and answers questions about names, without I/O::

    import gfwtools

    policy = gfwtools.compile(text, deny=["example.org"])
    policy.lookup("www.google.com").verdict   # "tunnel"
    policy.cover()                            # the smallest equivalent output: .tunnelled, .freed

Each name is imported at its first use, so ``import gfwtools`` is fast.
"""

from typing import TYPE_CHECKING, Any

from gfwtools._version import __version__

if TYPE_CHECKING:
    from gfwtools.errors import (
        ConfigError,
        FetchError,
        GfwtoolsError,
        HostError,
        InvalidNameError,
        ListError,
        ResolverError,
        StoreError,
    )
    from gfwtools.lists.compiler import Compiled, compile, compile_lists
    from gfwtools.lists.formats import Listing, parse
    from gfwtools.lists.policy import Cover, Match, Policy
    from gfwtools.lists.rule import Rule

__all__ = [
    "Compiled",
    "ConfigError",
    "Cover",
    "FetchError",
    "GfwtoolsError",
    "HostError",
    "InvalidNameError",
    "ListError",
    "Listing",
    "Match",
    "Policy",
    "ResolverError",
    "Rule",
    "StoreError",
    "__version__",
    "compile",
    "compile_lists",
    "parse",
]

_HOME = {
    **dict.fromkeys(("Compiled", "compile", "compile_lists"), "lists.compiler"),
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "errors"),
    **dict.fromkeys(("Listing", "parse"), "lists.formats"),
    **dict.fromkeys(("Cover", "Match", "Policy"), "lists.policy"),
    "Rule": "lists.rule",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"gfwtools.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

"""Regular expressions that are compiled at their first use: a question about one name needs few of them."""

import re
from typing import Any, cast

__all__ = ["pattern"]


class _Uncompiled:
    """Stands for a compiled expression. Its methods are those of the compiled one, from the first use on."""

    def __init__(self, text: str, flags: int) -> None:
        self.pattern = text
        self.flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(re.compile(self.pattern, self.flags), name)
        setattr(self, name, found)  # the next look-up finds it and does not come here
        return found


def pattern(text: str, flags: int = 0) -> "re.Pattern[str]":
    """What ``re.compile`` gives, for use by its methods."""
    return cast("re.Pattern[str]", _Uncompiled(text, flags))

"""The name and password that a URL may have (RFC 3986 section 3.2.1): shown in no error and in no file."""

import re

__all__ = ["masked", "masked_proxy", "masked_word"]

_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]*://"


def masked(url: str, stand_in: str = "***@") -> str:
    """``url`` with ``stand_in`` for its name and password, and the ``@`` behind them; a path is left as it is.

    A password may have a bare ``/``, ``?``, ``#`` or ``@`` in it, though it should not. Where more than a host stands
    before the path, all up to the last ``@`` is hidden: of ``http://host:8080/a@b`` that is too much, which is better
    than too little.
    """
    scheme = re.match(_SCHEME, url)
    if not scheme:
        return url
    rest = url[scheme.end() :]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    doubtful = "@" in authority or ":" in re.sub(r"^\[[^]]*\]", "", authority)  # [::1] is a host
    return f"{scheme[0]}{stand_in}{rest.rpartition('@')[2]}" if doubtful and "@" in rest else url


def masked_word(word: str) -> str:
    """A word of a command line: a URL, or an option that has one behind its ``=``."""
    option, equals, value = word.partition("=")
    return f"{option}={masked(value)}" if equals and option.startswith("-") else masked(word)


def masked_proxy(text: str) -> str:
    """The same for a proxy, which has no path, and may be meant by a text without a scheme."""
    return re.sub(rf"^({_SCHEME})?.*@", r"\1***@", text, flags=re.DOTALL)

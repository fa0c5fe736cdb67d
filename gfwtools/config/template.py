"""The configuration as bootstrap writes it: every key with its default, and a comment above it."""

import json
import textwrap

from gfwtools.config.keys import KEYS, Key
from gfwtools.config.model import Config, Dns, Fetch, Host, PolicyConfig

__all__ = ["template", "toml"]

WIDTH = 120
_HEAD = """\
# gfwtools: which domains go through the tunnel, and how. Every key is here with its default; docs/configuration.md
# says more. A change of [fetch] needs no command; format, sources and granularity need: gfwtools update --reload
# Every other key needs: gfwtools bootstrap
"""


def template() -> str:
    """The text of ``config.toml`` with all defaults.

    Each value is in the line of its key. A list that is too long for a line has a line for each item.
    """
    config = Config()
    (policy,) = config.policies
    tables: dict[str, Fetch | Dns | Host | PolicyConfig] = {
        "fetch": config.fetch,
        "dns": config.dns,
        "host": config.host,
        f"policy.{policy.name}": policy,
    }
    texts = [_HEAD]
    for heading, defaults in tables.items():
        texts.append(f"\n[{heading}]\n")
        texts += [_entry(key, getattr(defaults, key.name)) for key in KEYS[type(defaults)].values()]
    return "".join(texts)


def _entry(key: Key, default: object) -> str:
    words = key.sentences.replace("`", "")
    comment = textwrap.fill(words, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    line = f"{key.name} = {toml(key, default)}"
    if len(line) > WIDTH and isinstance(default, tuple):
        line = "\n".join([f"{key.name} = [", *(f"  {_value(item)}," for item in default), "]"])
    return f"{comment}\n{line}\n"


def toml(key: Key, value: object) -> str:
    """``value`` as the file writes it for ``key``, in one line."""
    if key.name in ("mark", "connmark_mask"):
        return f"{value:#x}"  # as `ip rule` and iptables show a mark
    if isinstance(value, tuple):
        return f"[{', '.join(map(_value, value))}]"
    return _value(value)


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, int):
        return str(value)
    return json.dumps(str(value), ensure_ascii=False)

"""The rows of docs/configuration.md, made from the table of keys. As a program it writes them (``make keys``)."""

import re
from pathlib import Path

from gfwtools.config.keys import KEYS, Key
from gfwtools.config.model import MIRRORS, Dns, Fetch, Host, PolicyConfig
from gfwtools.config.template import toml

__all__ = ["PAGE", "with_rows"]

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"
_TABLES = {"fetch": Fetch(), "dns": Dns(), "host": Host(), "policy": PolicyConfig()}
_HEAD = "| key | type | default | meaning |\n| --- | --- | --- | --- |\n"
_MARKED = re.compile(r"(?<=<!-- keys of )(\w+)(: make keys -->\n).*?(?=<!-- end of keys -->)", re.DOTALL)


def with_rows(page: str) -> str:
    """The page with the rows of each table of keys between its two markers."""
    return _MARKED.sub(lambda marker: f"{marker[1]}{marker[2]}{_rows(marker[1])}", page)


def _rows(table: str) -> str:
    defaults = _TABLES[table]
    return _HEAD + "".join(_row(key, getattr(defaults, key.name)) for key in KEYS[type(defaults)].values())


def _row(key: Key, default: object) -> str:
    shown = "gfwlist's mirrors" if default is MIRRORS else f"`{toml(key, default)}`"
    meaning = f"{key.sentences} See {key.see}." if key.see else key.sentences
    return f"| `{key.name}` | {key.kind} | {shown} | {meaning} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_rows(PAGE.read_text("utf-8")), "utf-8")

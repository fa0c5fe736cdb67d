"""The words of our messages that a page quotes, and the texts of the code that they must be in."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

#: So many words in a row are a sentence of ours, not values.
LEAST = 4
#: Lower-case words that stand for a value in an example.
_VALUES = {"gfwlist"}


def phrases(page: Path) -> Iterator[str]:
    """Every run of plain words in the blocks of a page, but for the commands in them."""
    for block in re.findall(r"^```\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            if not line.startswith("# "):
                # What follows is a command, or a rule of netfilter.
                yield from _runs(re.split(r"; fix: | by \S+ \([a-z0-9 ]+\): ", line)[0])


def _runs(line: str) -> Iterator[str]:
    # A column begins after two blanks; a word next to a digit or a sign is part of a value.
    for run in re.findall(r"(?<![^\s(])[a-z]+(?: [a-z]+)*(?![^\s,:;.)])", line):
        words: list[str] = []
        for word in [*run.split(" "), "gfwlist"]:
            if word not in _VALUES:
                words.append(word)
                continue
            if len(words) >= LEAST:
                yield " ".join(words)
            words = []


def is_in(phrase: str, known: Iterable[str]) -> bool:
    """Whether one of the texts has the phrase; one of its words may be a value there."""
    words = phrase.split(" ")
    forms = [phrase, *(" ".join([*words[:at], "\0", *words[at + 1 :]]) for at in range(len(words)))]
    return any(form in text for text in known for form in forms)


def texts(package: Path) -> Iterator[str]:
    """Each text in the package. One that is put together comes twice: with a NUL for each value, and without them."""
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
                yield from (text, text.replace("\0", ""))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value

"""The sources of gfwtools as syntax trees, for tests about the code itself. Each is parsed once."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from paths import REPO

SOURCES = tuple(sorted((REPO / "gfwtools").rglob("*.py")))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def _nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Every node of every source, with the name of its file in the repository."""
    for path in SOURCES:
        name = str(path.relative_to(REPO))
        for node in _nodes(path):
            yield name, node

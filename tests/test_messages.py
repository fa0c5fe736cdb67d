"""Messages are for people: no code decides by the words of one of ours."""

import ast
from collections.abc import Iterator

import pytest
from paths import REPO

from gfwtools import errors as errors_module

#: Attributes of our own values that hold sentences.
SENTENCES = {"detail", "what", "remedy", "message", "outcome", "found", "expected", "why"}
READERS = {
    "startswith",
    "endswith",
    "removesuffix",
    "removeprefix",
    "partition",
    "rpartition",
    "split",
    "find",
    "index",
}
#: The errors whose words are ours; those of a library may have to be read.
OURS = {name for name, value in vars(errors_module).items() if isinstance(value, type)} | {"CommandError"}
#: Not ours: the words of the interpreter and of the dynamic linker, before anything of ours is loaded.
FOREIGN = {"gfwtools/__main__.py"}


def is_sentence(node: ast.expr, errors: set[str]) -> bool:
    """Whether ``node`` is a sentence of ours: a field that holds one, or the text of an error."""
    match node:
        case ast.Attribute(attr=name):
            return name in SENTENCES
        case ast.Call(func=ast.Name(id="str"), args=[ast.Name(id=name)]):
            return name in errors
    return False


def names_in(node: ast.expr) -> Iterator[str]:
    return (each.id for each in ast.walk(node) if isinstance(each, ast.Name))


def readings(tree: ast.AST) -> Iterator[ast.expr]:
    """The places in which a sentence is read: by a method of text, by `in`, or by a regular expression."""
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    errors = {node.name for node in handlers if node.name and node.type and OURS & set(names_in(node.type))}
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in READERS:
                if is_sentence(value, errors):
                    yield node
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re")), args=arguments):
                if any(is_sentence(argument, errors) for argument in arguments):
                    yield node
            case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[right]) if is_sentence(right, errors):
                yield node


@pytest.mark.parametrize(
    "line",
    [
        'x = piece.detail.startswith("not wanted")',
        'if "dns.manager" not in error.message: pass',
        're.fullmatch("ip rule .*", piece.detail)',
        'try: pass\nexcept HostError as e:\n    what, _, remedy = str(e).rpartition("; ")',
    ],
)
def test_the_reading_of_a_sentence_is_found(line: str) -> None:
    assert len(list(readings(ast.parse(line)))) == 1


def test_no_code_reads_a_sentence_of_ours() -> None:
    found = [
        f"{path.relative_to(REPO)}:{node.lineno}: {ast.unparse(node)}"
        for path in sorted((REPO / "gfwtools").rglob("*.py"))
        if str(path.relative_to(REPO)) not in FOREIGN
        for node in readings(ast.parse(path.read_text("utf-8")))
    ]
    assert found == []

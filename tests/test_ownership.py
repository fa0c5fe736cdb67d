"""What is ours says so by one mark, and is known by it; what only speaks of us is somebody else's."""

import ast
from pathlib import Path

import pytest
from cli import gfwtools
from hypothesis import given
from hypothesis import strategies as st
from paths import FIXTURES
from sources import nodes

from gfwtools.plumbing.wanted import CHAIN
from gfwtools.render.header import WRITTEN
from gfwtools.system import ownership

#: Each mark, and the one module that defines it.
MARKS = {
    WRITTEN: "gfwtools/render/header.py",
    "# gfwtools begin": "gfwtools/system/ownership.py",
    "# gfwtools end": "gfwtools/system/ownership.py",
}
LINES = st.lists(st.text(st.characters(exclude_categories=["Cc", "Cs"])), max_size=4)


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_is_defined_once(mark: str) -> None:
    found = [
        name
        for name, node in nodes()
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes) and mark in str(node.value)
    ]
    assert found == [MARKS[mark]]


@pytest.mark.parametrize("layout", ["paired", "split"])
@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_every_file_that_update_writes_for_another_program_says_so(tmp_path: Path, backend: str, layout: str) -> None:
    etc = tmp_path / "etc/gfwtools"
    etc.mkdir(parents=True)
    sources = f'[policy.gfwlist]\nsources = ["{FIXTURES / "list.txt"}"]\n'
    (etc / "config.toml").write_text(f'[host]\nbackend = "{backend}"\n[dns]\nlayout = "{layout}"\n{sources}')
    gfwtools(tmp_path, "update")
    own = {"config.toml", "state.json", "lock", "gfwlist.direct", "gfwlist.domains", "gfwlist.list"}
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name not in own]
    assert {path.name for path in written if not ownership.has_header(path)} == set()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"# dnsmasq answers here, see gfwtools\n",
        b"# one\n# two\n# three\n# Written by gfwtools; changes made here are lost\n",
        b"server=9.9.9.9 # Written by gfwtools\n",
        b"# Written by gfwtools\n# gfwtools begin\nserver=9.9.9.9\n# gfwtools end\n",
    ],
)
def test_a_file_that_is_not_ours_as_a_whole_is_not_taken_for_it(data: bytes) -> None:
    assert not ownership.is_file(data)


def test_a_link_is_not_ours_wherever_it_leads(tmp_path: Path) -> None:
    (tmp_path / "ours").write_text(f"{WRITTEN}\n")
    (tmp_path / "link").symlink_to("ours")
    assert [ownership.has_header(tmp_path / name) for name in ("ours", "link", "none")] == [True, False, False]


@given(LINES, LINES, LINES)
def test_our_lines_go_out_of_a_file_without_a_trace(before: list[str], ours: list[str], after: list[str]) -> None:
    theirs = ["".join(f"{line}\n" for line in part) for part in (before, after)]
    data = f"{theirs[0]}{ownership.lines(ours)}{theirs[1]}".encode()
    assert ownership.without_lines(data).decode() == "".join(theirs)


@given(st.text())
def test_the_reason_of_a_rule_is_read_from_its_comment(why: str) -> None:
    assert ownership.reason(ownership.comment(why)) == why


@pytest.mark.parametrize(
    ("rule", "is_ours"),
    [
        ('-m comment --comment "gfwtools: policy gfwlist" -j MARK --set-xmark 0xca6c/0xffffffff', True),
        ("-m comment --comment gfwtools -j RETURN", True),
        ('-m comment --comment "see gfwtools: mine" -j RETURN', False),
        ('-m comment --comment "gfwtools-like" -j RETURN', False),
        ('-m string --string "gfwtools: x" -j DROP', False),
        (f"-j {CHAIN}", False),
    ],
)
def test_a_rule_is_ours_by_its_comment_alone(rule: str, is_ours: bool) -> None:
    assert ownership.is_rule(rule) is is_ours


@pytest.mark.parametrize(
    ("rules", "is_ours"),
    [([], True), (["-j DROP"], False), (["-j DROP", "-m comment --comment gfwtools -j RETURN"], True)],
)
def test_a_chain_of_our_name_is_ours_where_a_rule_in_it_is_or_none_is_there(rules: list[str], is_ours: bool) -> None:
    assert ownership.is_chain(rules) is is_ours


@pytest.mark.parametrize(("protocol", "is_ours"), [(str(ownership.PROTOCOL), True), ("2", False), (None, False)])
def test_a_route_is_ours_by_its_protocol(protocol: str | None, is_ours: bool) -> None:
    assert ownership.is_route({"dst": "default", "protocol": protocol}) is is_ours

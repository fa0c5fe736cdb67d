"""``state.json`` comes back as it was written; whatever else stands there is an empty one."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.errors import GfwtoolsError
from gfwtools.state import HISTORY, Change, Mirror, PolicyState, State, read_state, write_state


def test_the_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    change = Change("2026-08-06T00:00:00+00:00", "u", "d", {"read": 1}, 1, 1, 0)
    policy = PolicyState(source="u", files={"/a": "b"}, mirrors={"u": Mirror("e", "l", "d")}).remember(change)
    state = State({"gfwlist": policy})
    write_state(tmp_path / "state.json", state)
    assert read_state(tmp_path / "state.json") == state


def test_the_history_keeps_the_last_thirty_updates() -> None:
    state = PolicyState()
    for number in range(40):
        state = state.remember(Change(str(number), "", "", {}, 0, 0, 0))
    assert [change.date for change in state.history] == [str(number) for number in range(10, 40)]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"version": 1}', '{"version": 1, "policies": []}', '{"version": 1, "policies": {"a": 1}}',
     '{"version": 1, "policies": {"a": {"files": []}}}', '{"version": 1, "policies": {"a": {"source": 1}}}',
     '{"version": 1, "policies": {"a": {"mirrors": {"u": 1}}}}', '{"version": 99, "policies": {}}', "[" * 100_000, "\x00"],
)  # fmt: skip
def test_a_damaged_or_foreign_state_is_an_empty_one_that_says_so(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    state = read_state(tmp_path / "state.json")
    assert not state.policies
    assert state.problem


@given(st.binary(max_size=200))
def test_no_state_file_raises_anything_but_our_own_errors(tmp_path_factory, data: bytes) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path_factory.getbasetemp() / "state.json"
    path.write_bytes(data)
    try:
        read_state(path)
    except GfwtoolsError as error:
        assert "\n" not in str(error)


def test_true_is_no_number_and_a_history_without_end_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    change = {"date": "d", "source": "s", "digest": "", "counts": {}, "domains": 1, "added": 0, "removed": 0}
    path.write_text(json.dumps({"version": 1, "policies": {"gfwlist": {"history": [change] * 100}}}))
    assert len(read_state(path).of("gfwlist").history) == HISTORY
    path.write_text(json.dumps({"version": 1, "policies": {"gfwlist": {"domains": True}}}))
    assert "damaged" in read_state(path).problem

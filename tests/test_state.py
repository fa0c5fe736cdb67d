"""``state.json`` comes back as it was written; whatever else stands there is an empty one."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.errors import GfwtoolsError
from gfwtools.storage.state import HISTORY, Change, Mirror, PolicyState, State, read_state, write_state


def test_the_state_comes_back_as_it_was_written(tmp_path: Path) -> None:
    change = Change("2026-08-06T00:00:00+00:00", "u", "d", {"read": 1}, 1, 1, 0)
    policy = PolicyState(source="u", files={"/a": "b"}, mirrors={"u": Mirror("e", "l", "d")}, answered="u").remember(
        change
    )
    state = State({"gfwlist": policy})
    write_state(tmp_path / "state.json", state)
    assert read_state(tmp_path / "state.json") == state


def test_a_link_to_itself_in_place_of_the_state_is_damage_and_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.symlink_to(path.name)
    assert read_state(path) == State(problem=f"{path}: damaged; the next update replaces it")
    write_state(path, State())
    assert not path.is_symlink()
    assert read_state(path) == State()


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


@pytest.mark.parametrize(
    "policy",
    [
        *({field: text} for field in ("source", "list_date", "updated", "inputs") for text in ("\0", "\ud800", "x" * 4097)),
        *({field: {text: "d"}} for field in ("files", "effective", "loaded") for text in ("\0", "/\ud800", "x" * 4097)),
        {"files": {"/a": "\ud800"}}, {"files": {"/a": 1}}, {"mirrors": {"\ud800": {}}}, {"mirrors": {"u": {"etag": "\0"}}},
        {"history": [{"date": "\ud800", "source": "s", "digest": "", "counts": {}, "domains": 1, "added": 0, "removed": 0}]},
        *({"counts": {"read": count}} for count in (float("nan"), float("inf"), 1.5, True, None, "1", [1], -1, 10**400)),
        *({"counts": {"dropped": {"name": count}}} for count in (float("nan"), "1", {}, True)),
        {"counts": {"\0": 1}}, {"counts": {"dropped": {"\ud800": 1}}}, {"domains": 10**400},
    ],
    ids=lambda policy: ascii(policy)[:40],
)  # fmt: skip
def test_a_state_with_what_no_path_no_terminal_and_no_sum_can_take_is_damaged(tmp_path: Path, policy: object) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": 1, "policies": {"gfwlist": policy}}))
    assert read_state(path) == State(problem=f"{path}: damaged; the next update replaces it")


def test_a_policy_whose_name_cannot_be_printed_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"version": 1, "policies": {"\ud800": {}}}))
    assert "damaged" in read_state(path).problem

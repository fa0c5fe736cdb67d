"""The mirror that answered last is the first that the next update asks."""

from pathlib import Path

import pytest
from faults import Server, good, status
from paths import FIXTURES

from gfwtools.config.load import loads
from gfwtools.storage.state import read_state
from gfwtools.update.obtain import answered_first
from gfwtools.update.update import update

LIST = (FIXTURES / "list.txt").read_bytes()
STATE = "var/lib/gfwtools/state.json"
A, B, C = "https://a.example/l", "https://b.example/l", "https://c.example/l"


def update_from(root: Path, *sources: str, explicit: tuple[str, ...] = ()) -> None:
    update(loads(f"[policy.gfwlist]\nsources = {[*sources]}\n", root=root), sources=explicit)


@pytest.mark.parametrize(
    ("sources", "answered", "order"),
    [
        ([A, B, C], "", [A, B, C]),
        ([A, B, C], A, [A, B, C]),
        ([A, B, C], C, [C, A, B]),
        ([A, B, C], "https://gone.example/l", [A, B, C]),
        ([A, "https://me:secret@b.example/l"], "https://b.example/l", ["https://me:secret@b.example/l", A]),
        (["/etc/own.list", A, B], B, ["/etc/own.list", B, A]),
        ([A, "/etc/own.list", B], B, [A, "/etc/own.list", B]),
    ],
    ids=["none has", "the first", "the last", "one that is gone", "with a password", "after a file", "behind a file"],
)
def test_the_source_that_answered_passes_the_mirrors_before_it(
    sources: list[str], answered: str, order: list[str]
) -> None:
    assert answered_first(sources, answered) == order


def test_the_second_update_asks_the_mirror_that_answered_and_no_other(tmp_path: Path) -> None:
    with Server(status("503 Service Unavailable")) as dead, Server(good(LIST)) as living:
        for _ in range(2):
            update_from(tmp_path, dead.url, living.url)
        assert (len(dead.requests), len(living.requests)) == (1, 2)


def test_a_changed_list_of_sources_keeps_what_is_known_of_a_mirror(tmp_path: Path) -> None:
    with Server(status("503 Service Unavailable")) as dead, Server(good(LIST)) as living, Server(good(LIST)) as new:
        update_from(tmp_path, dead.url, living.url)
        update_from(tmp_path, new.url, dead.url, living.url)
        assert (len(new.requests), len(living.requests)) == (0, 2)


def test_another_mirror_with_the_same_list_is_remembered_and_no_other_file_touched(tmp_path: Path) -> None:
    with Server(good(LIST)) as first, Server(good(LIST)) as second:
        update_from(tmp_path, first.url)
        others = {path: path.stat().st_ino for path in tmp_path.rglob("gfwlist.*")}
        update_from(tmp_path, second.url)
        assert read_state(tmp_path / STATE).of("gfwlist").answered == second.url
        assert {path: path.stat().st_ino for path in tmp_path.rglob("gfwlist.*")} == others


def test_the_same_mirror_with_the_same_list_leaves_the_state_alone(tmp_path: Path) -> None:
    with Server(good(LIST)) as mirror:
        update_from(tmp_path, mirror.url)
        written = (tmp_path / STATE).stat().st_ino
        update_from(tmp_path, mirror.url)
        assert (tmp_path / STATE).stat().st_ino == written


def test_a_source_given_for_one_run_is_not_remembered(tmp_path: Path) -> None:
    with Server(good(LIST)) as mirror, Server(good(LIST)) as given:
        update_from(tmp_path, mirror.url)
        update_from(tmp_path, mirror.url, explicit=(given.url,))
        assert read_state(tmp_path / STATE).of("gfwlist").answered == mirror.url


def test_a_state_without_the_answer_keeps_the_order_of_the_configuration(tmp_path: Path) -> None:
    with Server(good(LIST)) as first, Server(good(LIST)) as second:
        update_from(tmp_path, first.url, second.url)
        state = tmp_path / STATE
        state.write_text(state.read_text().replace('"answered"', '"unknown"'))
        update_from(tmp_path, first.url, second.url)
        assert not read_state(state).problem
        assert not second.requests

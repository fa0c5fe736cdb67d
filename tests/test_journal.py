"""The one way back: what is written down before a change, and what becomes of it."""

import json
import os
from pathlib import Path

import pytest
from failing_calls import EIO, failing
from hypothesis import given
from hypothesis import strategies as st
from trees import tree_of

from gfwtools.config.model import Paths
from gfwtools.errors import GfwtoolsError, StoreError
from gfwtools.storage.journal import Entry, Journal, Original, Transaction


def files(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "etc").mkdir()
    (tmp_path / "var/lib/gfwtools").mkdir(parents=True)
    return Journal(Paths(tmp_path))


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    return tmp_path / "etc"


def plant(etc: Path, *names: str) -> list[Path]:
    for name in names:
        (etc / name).write_text("old")
    return [etc / name for name in names]


def test_what_succeeds_leaves_nothing_of_itself(journal: Journal, etc: Path) -> None:
    one, gone, new = *plant(etc, "one", "gone"), etc / "new"
    with journal.transaction("test", {}) as transaction:
        transaction.write({one: b"1", new: b"2"}, gone=[gone])
        assert len(journal.entries()) == 3
    assert files(etc) == {"one": "1", "new": "2"}
    assert not journal.folder.exists()


@pytest.mark.parametrize("error", [StoreError("failed"), KeyboardInterrupt()])
def test_what_fails_is_taken_back_with_modes_links_and_folders(
    journal: Journal, tmp_path: Path, etc: Path, error: BaseException
) -> None:
    one, gone = plant(etc, "one", "gone")
    one.chmod(0o640)
    (etc / "link").symlink_to("one")
    before = tree_of(tmp_path)
    with pytest.raises(type(error)), journal.transaction("test", {}) as transaction:
        transaction.write({one: b"1", etc / "a/b/new": b"2", etc / "link": b"3"}, gone=[gone])
        transaction.write({one: b"11"}, mode=None)
        raise error
    assert tree_of(tmp_path) == before


def test_an_error_says_once_what_became_of_the_rest(journal: Journal, etc: Path) -> None:
    (etc / "folder").mkdir()
    with (
        pytest.raises(StoreError, match=r"^\S+/folder: not a regular file; move it away; all is as it was$"),
        journal.transaction("test", {}, outcome="all is as it was") as transaction,
    ):
        transaction.write({etc / "one": b"1", etc / "folder": b"2"})


def test_a_transaction_within_another_is_taken_back_with_it(journal: Journal, etc: Path) -> None:
    (one,) = plant(etc, "one")
    with pytest.raises(StoreError), journal.transaction("outer", {}) as outer:
        with journal.transaction("inner", {}, within=outer) as inner:
            inner.write({one: b"1"})
        assert one.read_text() == "1"
        raise StoreError("failed")
    assert one.read_text() == "old"


def test_one_that_was_killed_is_taken_back_by_the_next_of_its_kind_only(journal: Journal, etc: Path) -> None:
    (one,) = plant(etc, "one")
    Transaction(journal, "killed", {}).write({one: b"1", etc / "new": b"2"})
    assert journal.recover("other", {}) == []
    assert one.read_text() == "1"
    assert journal.recover("killed", {}) == []
    assert files(etc) == {"one": "old"}
    assert not journal.folder.exists()


def test_a_copy_of_which_nothing_was_written_down_goes_with_the_next_run(journal: Journal, etc: Path) -> None:
    journal.folder.mkdir()
    (journal.folder / "7").write_text("copied before the power went")
    assert journal.recover("any", {}) == []
    assert not journal.folder.exists()


def test_a_line_without_an_end_was_never_acted_on(journal: Journal, etc: Path) -> None:
    (one,) = plant(etc, "one")
    Transaction(journal, "killed", {}).write({one: b"1"})
    with (journal.folder / "log").open("a") as log:
        log.write('{"number": 2, "kind": "fi')
    assert [entry.number for entry in journal.entries()] == [1]


def test_a_damaged_log_is_an_error_and_stays(journal: Journal) -> None:
    journal.folder.mkdir()
    (journal.folder / "log").write_text("not JSON\n")
    with pytest.raises(StoreError, match="log: damaged; move it away"):
        journal.recover("any", {})
    assert (journal.folder / "log").read_text() == "not JSON\n"


def test_the_original_outlives_later_versions_of_ours(journal: Journal, etc: Path) -> None:
    (one,) = plant(etc, "one")
    for version, keep in ((b"1", [one]), (b"2", [])):
        with journal.transaction("test", {}) as transaction:
            transaction.write({one: version}, keep=keep)
    entry = journal.kept_entries("file")["/etc/one"]
    assert (journal.folder / Original.of(entry.data["before"]).copy).read_text() == "old"
    assert entry.data["wrote"] == __import__("hashlib").sha256(b"2").hexdigest()


def test_a_later_version_that_fails_leaves_the_original_known(journal: Journal, etc: Path) -> None:
    (one,) = plant(etc, "one")
    with journal.transaction("test", {}) as transaction:
        transaction.write({one: b"1"}, keep=[one])
    before = files(journal.folder)
    with pytest.raises(StoreError), journal.transaction("test", {}) as transaction:
        transaction.write({one: b"2"})
        raise StoreError("failed")
    assert one.read_text() == "1"
    assert list(map(json.loads, before["log"].splitlines())) == [entry._asdict() for entry in journal.entries()]


def test_where_no_link_can_be_made_the_original_is_copied(
    journal: Journal, etc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = plant(etc, "one")
    one.chmod(0o600)
    failing("link", lambda number: True, monkeypatch, OSError(18, "Invalid cross-device link"))
    with pytest.raises(StoreError), journal.transaction("test", {}) as transaction:
        transaction.write({one: b"1"}, mode=None)
        raise StoreError("failed")
    assert (one.read_text(), one.stat().st_mode & 0o777) == ("old", 0o600)


def test_inverses_run_the_last_change_first_and_one_that_fails_stops_no_other(journal: Journal) -> None:
    done = []

    def undo(entry: Entry, doubtful: bool) -> None:
        done.append(entry.key)
        if entry.key == "two":
            raise GfwtoolsError("two stays")

    with (
        pytest.raises(StoreError, match=r"^failed; could not be taken back: two stays$"),
        journal.transaction("test", {"x": undo}) as transaction,
    ):
        for key in ("one", "two", "three"):
            transaction.record("x", {}, key)
        raise StoreError("failed")
    assert done == ["three", "two", "one"]


def test_only_the_last_change_of_a_killed_run_is_doubtful(journal: Journal) -> None:
    seen = []
    killed = Transaction(journal, "killed", {})
    for key in ("one", "two"):
        killed.record("x", {}, key)
    journal.recover("killed", {"x": lambda entry, doubtful: seen.append((entry.key, doubtful))})
    assert seen == [("two", True), ("one", False)]


def test_an_amended_entry_stands_at_its_old_place(journal: Journal) -> None:
    with journal.transaction("test", {}) as transaction:
        first = transaction.record("x", {"touched": False})
        transaction.record("x", {})
        transaction.amend(first, {"touched": True})
        assert [entry.data for entry in journal.entries()] == [{"touched": True}, {}]


@pytest.mark.parametrize("number", range(1, 12))
@pytest.mark.parametrize("error", [EIO, MemoryError(), KeyboardInterrupt()])
def test_whichever_flush_fails_the_files_are_the_old_or_the_new_ones(
    journal: Journal, etc: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException
) -> None:
    one, gone, last = plant(etc, "one", "gone", "last")
    before, after = files(etc), {"one": "new", "last": "new"}
    failing("fsync", lambda now: now == number, monkeypatch, error)
    try:
        with journal.transaction("test", {}) as transaction:
            transaction.write({one: b"new", last: b"new"}, gone=[gone], last=last)
        assert files(etc) == after
    except BaseException as caught:
        assert isinstance(caught, StoreError | MemoryError | KeyboardInterrupt)
        assert files(etc) == before


def test_two_programs_give_no_entry_the_number_of_another(journal: Journal) -> None:
    numbers = []
    for _ in range(3):
        if os.fork() == 0:
            status = 1
            try:
                mine = Transaction(Journal(journal.paths), f"of {os.getpid()}", {})
                for key in range(20):
                    mine.record("x", {}, str(key))
                status = 0
            finally:
                os._exit(status)
    for _ in range(3):
        assert os.wait()[1] == 0
    numbers = [entry.number for entry in journal.entries()]
    assert len(numbers) == len(set(numbers)) == 60


names = st.sampled_from(["a", "b", "c/d"])
changes = st.lists(st.dictionaries(names, st.one_of(st.none(), st.binary(max_size=3)), min_size=1), max_size=4)


@given(st.dictionaries(names, st.binary(max_size=3)), changes)
def test_whatever_was_written_and_removed_comes_back(
    tmp_path_factory: pytest.TempPathFactory, before: dict[str, bytes], runs: list[dict[str, bytes | None]]
) -> None:
    root = tmp_path_factory.mktemp("root")
    paths = Paths(root)
    paths.state_dir.mkdir(parents=True)
    for name, data in before.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    tree = tree_of(root)
    killed = Transaction(Journal(paths), "killed", {})
    for run in runs:
        written = {root / name: data for name, data in run.items() if data is not None}
        killed.write(written, gone=[root / name for name, data in run.items() if data is None])
    Journal(paths).recover("killed", {})
    assert tree_of(root) == tree

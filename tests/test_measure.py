"""Which fetched list may take the place of the last good one: replay, a slow shrinking, a swap, too much of the Internet."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cli import gfwtools
from paths import REPO

from gfwtools.config.model import MIRRORS
from gfwtools.errors import ListError
from gfwtools.lists.compiler import compile_lists
from gfwtools.lists.formats import Listing
from gfwtools.storage.state import HISTORY, Change, PolicyState, read_state
from gfwtools.update.measure import largest, require_networks, require_not_older

DOMAINS = "var/lib/gfwtools/gfwlist.domains"
NOW = datetime(2026, 8, 7, tzinfo=UTC)


def give(root: Path, names: range, *args: str, date: str = "", code: int = 0, prefix: str = "site") -> str:
    """Update with a list of ``names``; what standard error says."""
    source = root / "list.txt"
    head = f"[AutoProxy 0.2.9]\n! Last Modified: {date}\n" if date else ""
    source.write_text(head + "".join(f"||{prefix}{number}.com\n" for number in names))
    return gfwtools(root, "update", "--source", str(source), *args, code=code).stderr


def change(day: int, rules: int, *, forced: bool = False) -> Change:
    counts = {"read": rules, "dropped": {}}
    return Change(f"2026-08-{day:02}T00:00:00+00:00", "u", "d", counts, rules, 0, 0, forced)


def test_a_list_may_not_halve_step_by_step(tmp_path: Path) -> None:
    give(tmp_path, range(1000))
    give(tmp_path, range(501))
    assert "the largest of the last 30 days had 1,000" in give(tmp_path, range(251), code=1)
    assert (tmp_path / DOMAINS).read_text().count("\n") == 501


def test_a_list_of_other_names_needs_force(tmp_path: Path) -> None:
    give(tmp_path, range(100))
    assert "0 of the 100 domains" in give(tmp_path, range(100), code=1, prefix="other")
    assert "site7.com\n" in (tmp_path / DOMAINS).read_text()
    give(tmp_path, range(100), "--force", prefix="other")
    assert "other7.com\n" in (tmp_path / DOMAINS).read_text()


def test_the_users_own_lists_hide_no_swap_and_cause_no_refusal(tmp_path: Path) -> None:
    own = tmp_path / "etc/gfwtools"
    own.mkdir(parents=True)
    (own / "deny.txt").write_text("".join(f"mine{number}.com\n" for number in range(1000)))
    give(tmp_path, range(100))
    assert "0 of the 100 domains" in give(tmp_path, range(100), code=1, prefix="other")
    (own / "deny.txt").write_text("")
    (own / "allow.txt").write_text("".join(f"site{number}.com\n" for number in range(60)))
    give(tmp_path, range(101))


def test_a_list_that_was_forced_is_the_measure_of_the_next(tmp_path: Path) -> None:
    give(tmp_path, range(1000))
    give(tmp_path, range(100), "--force")
    give(tmp_path, range(101))
    assert "had 101" in give(tmp_path, range(40), code=1)


def test_an_older_list_than_the_one_in_use_needs_force(tmp_path: Path) -> None:
    new, old = "Thu, 06 Aug 2026 08:35:22 +0000", "Fri, 31 May 2013 12:48:39 -0400"
    give(tmp_path, range(100), date=new)
    assert f"it is of {old}, that one of {new}" in give(tmp_path, range(101), date=old, code=1)
    give(tmp_path, range(101), "--force", date=old)
    assert (tmp_path / DOMAINS).read_text().count("\n") == 101


@pytest.mark.parametrize(("new", "used"), [("", "Thu, 06 Aug 2026 08:35:22 +0000"), ("2026-08-05", "Fri, 01 Jan 2100 00:00:00 +0000"), ("soon", "later")])  # fmt: skip
def test_what_is_no_date_or_lies_in_the_future_refuses_no_list(new: str, used: str) -> None:
    require_not_older(new, used, NOW)


def test_the_largest_list_counts_for_thirty_days() -> None:
    assert largest([change(1, 900), change(2, 500)], NOW) == 900
    assert largest([change(1, 900), change(2, 500)], datetime(2026, 9, 1, tzinfo=UTC)) == 500
    assert largest([change(1, 900), change(2, 500, forced=True), change(3, 400)], NOW) == 500
    assert largest([change(9, 900)], NOW) == 0  # the clock went back


def test_many_small_changes_do_not_push_the_largest_list_out_of_the_history() -> None:
    state = PolicyState().remember(change(1, 900))
    for _ in range(3 * HISTORY):
        state = state.remember(change(2, 500))
    assert len(state.history) == HISTORY
    assert largest(state.history, NOW) == 900


def test_what_changed_by_more_than_a_tenth_is_said_in_one_line(tmp_path: Path) -> None:
    assert give(tmp_path, range(100)) == ""
    assert give(tmp_path, range(105)) == ""
    said = give(tmp_path, range(20, 105))
    assert said.count("\n") == 1
    assert "changed by more than a tenth: 20 of its 105 domains are gone, 0 are new" in said


@pytest.mark.parametrize(
    "networks",
    [[f"{first}.0.0.0/8" for first in range(11, 90)], [f"2{digit:03x}::/16" for digit in range(0x800)]],
    ids=["4", "6"],
)
def test_networks_that_are_much_of_the_internet_are_refused(networks: list[str]) -> None:
    compiled = compile_lists(Listing("list", "\n".join(networks), "domains"))
    with pytest.raises(ListError, match="of the addresses of IPv"):
        require_networks(compiled)
    require_networks(compile_lists(Listing("list", "\n".join(networks[:8]), "domains")))


def test_what_was_before_a_forced_list_is_not_kept_for_its_size() -> None:
    state = PolicyState().remember(change(1, 900)).remember(change(2, 100, forced=True))
    for _ in range(3 * HISTORY):
        state = state.remember(change(3, 100))
    assert largest(state.history, NOW) == 100


def test_half_of_the_names_cannot_be_replaced_again_and_again(tmp_path: Path) -> None:
    give(tmp_path, range(1000))
    give(tmp_path, range(400, 1400))
    assert "200 of the 1,000 domains of the list that was in use before" in give(tmp_path, range(800, 1800), code=1)
    give(tmp_path, range(450, 1450))
    give(tmp_path, range(800, 1800), "--force")
    give(tmp_path, range(1200, 2200))


def test_after_a_month_the_earlier_list_counts_no_more(tmp_path: Path) -> None:
    give(tmp_path, range(100))
    give(tmp_path, range(40, 140))
    state = tmp_path / "var/lib/gfwtools/state.json"
    since = read_state(state).of("gfwlist").reference
    state.write_text(state.read_text().replace(f'"reference": "{since}"', '"reference": "2026-01-01T00:00:00+00:00"'))
    give(tmp_path, range(80, 180))


def with_sources(root: Path, *sources: object) -> None:
    (root / "etc/gfwtools").mkdir(parents=True)
    text = ", ".join(f'"{source}"' for source in sources)
    # A proxy that is not there: no source outside of this host answers.
    (root / "etc/gfwtools/config.toml").write_text(
        f'[fetch]\nproxy = "http://127.0.0.1:9"\n[policy.gfwlist]\nsources = [{text}]\n'
    )


def test_the_first_list_of_the_users_own_source_may_have_any_names(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    with_sources(tmp_path, source, "http://127.0.0.1:9/list")
    assert "starter list" in gfwtools(tmp_path, "update").stderr
    source.write_text("||example.org\n")
    gfwtools(tmp_path, "update")
    assert (tmp_path / "var/lib/gfwtools/gfwlist.domains").read_text() == "example.org\n"
    source.write_text("||example.org\n||example.net\n")  # the starter list is no measure of its size
    gfwtools(tmp_path, "update")


def test_a_list_in_place_of_the_starter_list_has_its_names(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    with_sources(tmp_path, source, MIRRORS[0])
    assert "starter list" in gfwtools(tmp_path, "update").stderr
    source.write_text("||example.org\n")
    assert "domains of the built-in starter list" in gfwtools(tmp_path, "update").stderr
    starter = (REPO / "gfwtools/data/starter.txt").read_text()
    source.write_text(starter.replace("! Title:", "! Was:") + "||example.org\n")
    assert "starter" not in gfwtools(tmp_path, "update").stderr


def test_a_clock_that_was_never_set_lets_no_old_list_in() -> None:
    with pytest.raises(ListError, match="older"):
        require_not_older("2013-05-31", "2026-08-06", datetime(1970, 1, 1, tzinfo=UTC))

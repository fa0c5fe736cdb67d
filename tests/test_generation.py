"""The generation of a file: what to ask a dnsmasq for to see whether it has read that file."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from dnsmasq_files import dnsmasq_accepts
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.render.generation import Generation, at_start, generation_of, leading, on_sighup

HEAD = "# policy gfwlist\n# list: {date}\n"
BODY = "server=/blocked.example/8.8.8.8#53\n"
STAMPS = [at_start, leading, on_sighup]
names = st.from_regex(r"[a-z][a-z0-9_-]{0,30}", fullmatch=True)


def stamped(stamp: Callable[[str, str], str], body: str = BODY, date: str = "x", policy: str = "gfwlist") -> str:
    return stamp(HEAD.format(date=date) + body, policy)


@pytest.mark.parametrize("stamp", STAMPS)
def test_another_content_is_another_generation(stamp: Callable[[str, str], str]) -> None:
    first, other = (generation_of(stamped(stamp, body).encode()) for body in (BODY, BODY * 2))
    assert first
    assert first != other


@pytest.mark.parametrize("stamp", STAMPS)
def test_another_date_in_the_comments_is_the_same_generation(stamp: Callable[[str, str], str]) -> None:
    first, other = (generation_of(stamped(stamp, date=date).encode()) for date in ("Monday", "Tuesday"))
    assert first == other


@pytest.mark.parametrize("stamp", STAMPS)
def test_the_first_kilobyte_of_a_large_file_has_the_generation(stamp: Callable[[str, str], str]) -> None:
    assert generation_of(stamped(stamp, BODY * 100_000).encode()[:1024])


def test_a_file_of_somebody_else_has_no_generation() -> None:
    for data in (b"", BODY.encode(), b"txt-record=generation.x,zz\n", b"\xff\x00"):
        assert generation_of(data) is None


def test_a_record_is_proven_by_its_text_and_a_name_by_not_being_there() -> None:
    digest = hashlib.sha256(BODY.encode()).hexdigest()[:16]
    assert generation_of(stamped(at_start).encode()) == Generation("generation.gfwlist.gfwtools.invalid", digest)
    assert generation_of(stamped(on_sighup).encode()) == Generation(f"{digest}.servers.gfwlist.gfwtools.invalid", "")


@given(names)
def test_whatever_a_policy_is_called_the_generation_is_found_again(name: str) -> None:
    for stamp in STAMPS:
        found = generation_of(stamped(stamp, policy=name).encode())
        assert found
        assert f".{name}.gfwtools.invalid" in found.name


@pytest.mark.parametrize("name", ["a", "a-", "a_b", "xn--zz", "a" * 31])
@pytest.mark.parametrize("stamp", STAMPS)
def test_dnsmasq_takes_it_whatever_a_policy_is_called(
    tmp_path: Path, stamp: Callable[[str, str], str], name: str
) -> None:
    file = tmp_path / "x.conf"
    file.write_text(stamped(stamp, policy=name))
    dnsmasq_accepts(file)

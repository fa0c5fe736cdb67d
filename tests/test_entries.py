"""The entries of a user's list: what a person means, and a list with one more or one fewer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.errors import InvalidNameError, ListError
from gfwtools.lists.decode import text_of
from gfwtools.lists.entries import Entry, entries_in, parse_entry, with_entry, without_entry

X, Y = Entry("x.example"), Entry("y.example")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("example.com", "example.com"),
        ("HTTPS://user:pw@WWW.Example.com:8443/path?x#y", "www.example.com"),
        ("*.example.com", "example.com"),
        (".example.com.", "example.com"),
        ("||example.com^", "example.com"),
        ("中文.com", "xn--fiq228c.com"),
        ("cn", "cn"),
        ("*.cn", "cn"),
        ("http://203.0.113.7/", "203.0.113.7"),
        ("203.0.113.9/24", "203.0.113.0/24"),
        ("[2001:db8::1]", "2001:db8::1"),
    ],
)
def test_what_a_person_pastes_is_read_as_a_line_of_the_list_is(text: str, meant: str) -> None:
    assert parse_entry(text).text == meant


@pytest.mark.parametrize(
    "text",
    ["", " ", "#x", "a b", "a.example b.example", "a.example\nb.example", "a.example\rb.example", "-x.example", "a..b",
     "@@||x.example", "a*.example.com", "/re.*/", "0.0.0.0/0", "1.2.3", "a" * 64 + ".example", "x.example,y.example"],
)  # fmt: skip
def test_what_is_no_entry_is_refused(text: str) -> None:
    with pytest.raises(InvalidNameError):
        parse_entry(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b"x.example\n"),
        (b"# mine\n", b"# mine\nx.example\n"),
        (b"# mine", b"# mine\nx.example\n"),
        (b"# mine\r\nb.example", b"# mine\r\nb.example\r\nx.example\r\n"),
        (b"\xef\xbb\xbfb.example\n\n# end\n", b"\xef\xbb\xbfb.example\n\n# end\nx.example\n"),
        (b"# no UTF-8: \xc3\xff\n", b"# no UTF-8: \xc3\xff\nx.example\n"),
        ("# \u4e2d\r\n".encode("utf-16"), "# \u4e2d\r\nx.example\r\n".encode("utf-16")),
    ],
)
def test_a_new_entry_comes_last_and_the_rest_keeps_its_bytes(before: bytes, after: bytes) -> None:
    assert with_entry(before, X) == after


def test_every_line_that_names_the_entry_goes_and_no_other() -> None:
    before = b"\xef\xbb\xbfX.example  # why\r\n# x.example\r\nhttps://x.example/a\rnotx.example\n\nwww.x.example"
    removed = without_entry(before, X)
    assert removed.data == b"\xef\xbb\xbf# x.example\r\nnotx.example\n\nwww.x.example"
    assert removed.comments == ("why",)


lines = st.lists(
    st.sampled_from(["x.example", "X.EXAMPLE. # c", "y.example", "# note", "", "203.0.113.0/24", "\ufeff"])
)
ends = st.sampled_from(["\n", "\r\n", "\r"])


@given(lines, ends, st.booleans(), st.sampled_from(["utf-8", "utf-16"]))
def test_an_entry_that_was_added_is_named_and_one_that_was_removed_is_not(
    parts: list[str], end: str, closed: bool, encoding: str
) -> None:
    data = (end.join(parts) + (end if closed else "")).encode(encoding)
    more = with_entry(data, Y)
    assert list(entries_in(text_of(more)).values()) == [*entries_in(text_of(data)).values(), Y]
    fewer = without_entry(more, X).data
    assert X not in entries_in(text_of(fewer)).values()
    assert [entry for entry in entries_in(text_of(more)).values() if entry != X] == [
        *entries_in(text_of(fewer)).values()
    ]


def test_a_damaged_utf_16_file_is_not_written() -> None:
    with pytest.raises(ListError, match="UTF-16"):
        with_entry(b"\xff\xfea", X)

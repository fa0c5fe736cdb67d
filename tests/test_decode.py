"""The wire format: what is a list, and what is said of what is none."""

import base64
import bz2
import gzip
import lzma

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.errors import GfwtoolsError, ListError
from gfwtools.lists.decode import checksum, decode

PLAIN = b"[AutoProxy 0.2.9]\n! Title: Test\n! Last Modified: Thu, 06 Aug 2026 08:35:22 +0000\n\n||example.com\n"


def with_checksum(text: bytes) -> bytes:
    head, _, rest = text.partition(b"\n")
    return head + b"\n! Checksum: " + checksum(text)[1].encode() + b"\n" + rest


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        base64.b64encode(PLAIN),
        base64.encodebytes(PLAIN * 9),
        base64.encodebytes(PLAIN * 9).replace(b"\n", b"\r\n"),
        base64.b64encode(PLAIN).rstrip(b"="),
        base64.b64encode(b"\xef\xbb\xbf" + PLAIN),
        PLAIN.decode().encode("utf-16"),
        with_checksum(PLAIN),
        with_checksum(PLAIN).replace(b"\n", b"\r\n"),
        with_checksum(PLAIN).replace(b"\n\n", b"\n\n\n\n"),
    ],
)
def test_base64_and_plain_text_are_told_apart_by_content(data: bytes) -> None:
    found = decode(data)
    assert "||example.com" in found.text.split("\n")
    assert found.last_modified == "Thu, 06 Aug 2026 08:35:22 +0000"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b" \r\n", "empty"),
        (b"<!DOCTYPE html><html>login</html>", "web page"),
        (b"\n  <html><body>||example.com</body></html>", "web page"),
        (base64.b64encode(b"<html></html>"), "web page"),
        (base64.b64encode(PLAIN)[:-3], "cut short"),
        (base64.b64encode(with_checksum(PLAIN * 3))[:-40], "checksum is wrong"),
        (with_checksum(PLAIN)[:-5], "checksum is wrong"),
        (with_checksum(PLAIN).replace(b"example", b"exemple"), "checksum is wrong"),
        (b"=" * 10, "base64"),
    ],
)
def test_what_is_no_list_is_said_in_one_line(data: bytes, message: str) -> None:
    if data == b"=" * 10:
        assert not decode(data).header  # plain text, if odd: that none of it is a rule is found out later
        return
    with pytest.raises(ListError, match=message) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (gzip.compress(PLAIN), "this is a gzip file"),
        (lzma.compress(PLAIN), "this is an xz file"),
        (bz2.compress(PLAIN), "this is a bzip2 file"),
        (b"PK\x03\x04\x14", "this is a zip file"),
        (b"\x28\xb5\x2f\xfd\x04", "this is a zstd file"),
    ],
)
def test_a_packed_file_is_named(data: bytes, message: str) -> None:
    with pytest.raises(ListError, match=f"{message}, not a list; give the list unpacked"):
        decode(data)


def test_a_list_that_is_never_in_base64_is_not_taken_for_it() -> None:
    assert decode(b"corp\nlan\n", base64=False).text == "corp\nlan\n"


def test_a_list_without_a_checksum_is_accepted() -> None:
    assert checksum(PLAIN)[0] is None
    assert decode(PLAIN).text == PLAIN.decode()


def test_a_list_larger_than_the_limit_after_decoding_is_refused() -> None:
    with pytest.raises(ListError, match="max_bytes"):
        decode(base64.b64encode(b"||a.com\n" * 1000), max_bytes=4000)


def test_bytes_that_are_no_utf_8_cost_only_their_line() -> None:
    assert decode(b"! \xc4\xe3\xba\xc3\n||example.com\n").text.endswith("||example.com\n")


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_the_projects_own_errors(data: bytes) -> None:
    try:
        decode(data)
    except GfwtoolsError as error:
        assert "\n" not in str(error)


@given(st.text(st.characters(codec="ascii", exclude_characters="\r"), max_size=300))
def test_the_checksum_of_a_list_survives_line_ends_and_base64(body: str) -> None:
    data = with_checksum(b"[AutoProxy 0.2.9]\n" + body.encode())
    told, computed = checksum(data)
    if told:
        assert told == computed == checksum(data.replace(b"\n", b"\r\n"))[1]

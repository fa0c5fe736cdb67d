"""The wire format: bytes -> the text of a list and its header; base64 or plain text, recognised by content."""

import codecs
import re
from binascii import b2a_base64
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from gfwtools.digest import md5
from gfwtools.errors import ListError

__all__ = ["Decoded", "as_stored", "checksum", "decode", "text_of"]

# The "++" gives nothing back: with white space in both places, a megabyte of it would be tried at each of its bytes.
# Texts: each is compiled when it is first used, and a question about a name uses few.
_BASE64 = rb"[A-Za-z0-9+/\s]++={0,2}\s*"
# A "! Key: value" line of the comments that a list begins with.
_FIELD = r"!\s*([A-Za-z][A-Za-z -]{0,40}?)\s*:\s*(\S.{0,200})"
_CHECKSUM = rb"(?im)^[ \t]*![ \t]*checksum[ \t:-]+(\S{1,100})[ \t]*\n"
# No list begins with a tag, and none has these in its first lines.
_HTML = rb"(?im)\s*<[a-z!/?]|[^!]*?^\s*<(?:!doctype|html|head|body)\b"
#: How packed files begin; HTTP's own packing is undone before.
_PACKED = {
    b"\x1f\x8b": "a gzip file",
    b"PK\x03\x04": "a zip file",
    b"\xfd7zXZ\0": "an xz file",
    b"BZh91AY&SY": "a bzip2 file",
    b"\x28\xb5\x2f\xfd": "a zstd file",
}
#: More lines than this are refused before one is read.
MAX_LINES = 1_010_000
#: The default of ``fetch.max_bytes``: a million rules have 16 MiB, and 22 in base64. gfwlist has 0.1.
MAX_BYTES = 24 * 1024 * 1024
#: A header stands in the first lines of a list.
_HEADER_BYTES = 4096


class Decoded(NamedTuple):
    """A list as its author wrote it."""

    data: bytes
    """The decoded bytes, without a byte order mark."""
    text: str
    """The same as text; bytes that are no UTF-8 (old lists have some in comments) are U+FFFD."""
    header: Mapping[str, str] = MappingProxyType({})
    """The fields of the header by their names in lower case: ``title``, ``last modified``, ``checksum``."""

    @property
    def last_modified(self) -> str:
        """The list's own date as it writes it, or the empty text."""
        return self.header.get("last modified", "")


def decode(data: bytes, *, base64: bool = True, max_bytes: int = MAX_BYTES) -> Decoded:
    """Decode what a mirror sent.

    :param base64: whether it may be in base64, as lists in AutoProxy's format are; a list of names without a dot looks
        like it.
    :raises ListError: it is empty, a packed file, a web page, base64 that is broken or cut short, too large, or its
        checksum is wrong.
    """
    for beginning, what in _PACKED.items():
        if data.startswith(beginning):
            raise ListError(f"this is {what}, not a list; give the list unpacked, or a URL that has it so")
    data = _without_bom(data)
    if re.match(_HTML, data[:_HEADER_BYTES]):
        raise ListError("this is a web page, not a list; does the network ask for a login (a captive portal)?")
    # Such a list in plain text has a dot, a bar or a bracket in its first rule; base64 has none of them.
    if base64 and re.fullmatch(_BASE64, data) and not data.isspace():
        data = _without_bom(_decode_base64(data))
    return as_stored(data, max_bytes=max_bytes)


def as_stored(data: bytes, *, max_bytes: int = MAX_BYTES) -> Decoded:
    """What :func:`decode` made of a list, read back from its ``data``: a text that looks like base64 stays a text.

    :raises ListError: it is empty, a web page, too large, or its checksum is wrong.
    """
    if not data.strip():
        raise ListError("the list is empty")
    if len(data) > max_bytes:
        raise ListError(f"the list has {len(data)} bytes decoded, more than fetch.max_bytes, {max_bytes}")
    if re.match(_HTML, data[:_HEADER_BYTES]):
        raise ListError("this is a web page, not a list")
    # A list of today's size is not looked through for them.
    lines = data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n") if len(data) > MAX_LINES else 0
    if lines > MAX_LINES:
        raise ListError(f"the list has {lines:,} lines; more than {MAX_LINES:,} are not read")
    stated, computed = checksum(data)
    if stated is not None and stated != computed:
        raise ListError(
            f"the checksum is wrong: the list says {stated}, its text has {computed}; it was cut or changed"
        )
    text = text_of(data)
    return Decoded(data, text, _header(text[:_HEADER_BYTES]))


def text_of(data: bytes) -> str:
    """A text file of any editor: UTF-8, or UTF-16 with a byte order mark; its line ends become newlines."""
    data = _without_bom(data)
    if b"\r" in data:  # in bytes: one character of a later plane makes four bytes of each in a text
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return data.decode("utf-8", "replace")


def checksum(data: bytes) -> tuple[str | None, str]:
    """The checksum that a list states, or None, and the one that its text has.

    Base64 of the MD5, without ``=``, of the text with CRs dropped, runs of newlines folded to one and the checksum line
    removed (Adblock Plus's addChecksum.py; it holds for gfwlist from 2009 on). It guards against a broken transfer.
    """
    text = data.replace(b"\r", b"")
    if b"\n\n" in text:
        text = re.sub(rb"\n\n+", b"\n", text)
    found = re.search(_CHECKSUM, text[:_HEADER_BYTES])
    if found:
        text = text[: found.start()] + text[found.end() :]
    digest = md5(text)
    stated = "".join(c for c in found[1].decode("ascii", "replace") if c.isprintable()).rstrip("=") if found else None
    return stated, b2a_base64(digest, newline=False).decode("ascii").rstrip("=")


def _without_bom(data: bytes) -> bytes:
    for bom, encoding in ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if data.startswith(bom):
            return data.decode(encoding, "replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _decode_base64(data: bytes) -> bytes:
    import pybase64

    body = data.translate(None, b" \t\n\r\v\f")  # split() makes an object of each piece
    # Padding may be left out (RFC 4648 section 3.2), but no encoder ends with a single character of four.
    if len(body.rstrip(b"=")) % 4 == 1 or (body.endswith(b"=") and len(body) % 4):
        raise ListError("the base64 is cut short; the transfer was not complete")
    try:
        return pybase64.b64decode(body + b"=" * (-len(body) % 4), validate=True)
    except ValueError as error:
        raise ListError(f"the base64 is broken: {error}") from None


def _header(text: str) -> dict[str, str]:
    header: dict[str, str] = {}
    for line in text.split("\n"):
        line = line.strip()
        if line and line[0] not in "![":
            break
        if match := re.fullmatch(_FIELD, line):
            # It ends up on terminals and in files.
            header.setdefault(match[1].lower(), "".join(c for c in match[2] if c.isprintable()).strip())
    return header

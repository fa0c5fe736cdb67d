"""Questions and answers on the wire are what dnspython says they are, and no bytes of anybody break the reader."""

from ipaddress import IPv4Address, IPv6Address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.dnsmasq.wire import Kind, question, reply

labels = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?", fullmatch=True)
names = st.lists(labels, min_size=1, max_size=4).map(".".join).filter(lambda name: len(name) <= 253)
kinds: st.SearchStrategy[Kind] = st.sampled_from(("A", "AAAA"))
numbers = st.integers(0, 65535)
fours = st.lists(st.integers(0, 2**32 - 1).map(IPv4Address), max_size=9, unique=True)
sixes = st.lists(st.integers(0, 2**128 - 1).map(IPv6Address), max_size=9, unique=True)
ADDRESS = IPv4Address("198.51.100.7")


def response(asked: bytes, alias: str, fours: list[IPv4Address], sixes: list[IPv6Address]) -> dns.message.Message:
    """An answer with an alias and addresses of both families, its names compressed."""
    answer = dns.message.make_response(dns.message.from_wire(asked))
    answer.answer.append(dns.rrset.from_text(answer.question[0].name, 60, "IN", "CNAME", f"{alias}."))
    for kind, found in (("A", fours), ("AAAA", sixes)):
        if found:
            answer.answer.append(dns.rrset.from_text(f"{alias}.", 60, "IN", kind, *map(str, found)))
    return answer


@given(numbers, names, kinds)
def test_a_question_is_what_dnspython_reads(number: int, name: str, kind: Kind) -> None:
    query = dns.message.from_wire(question(number, name, kind))
    assert query.id == number
    assert query.flags == dns.flags.RD
    assert [rrset.to_text() for rrset in query.question] == [f"{name}. IN {kind}"]


@given(numbers, names, kinds, names, fours, sixes)
def test_an_answer_has_the_addresses_that_dnspython_wrote(
    number: int, name: str, kind: Kind, alias: str, fours: list[IPv4Address], sixes: list[IPv6Address]
) -> None:
    asked = question(number, name, kind)
    found = reply(response(asked, alias, fours, sixes).to_wire(), asked, kind)
    assert found is not None
    wanted = fours if kind == "A" else sixes
    assert {IPv4Address(a) if kind == "A" else IPv6Address(a) for a in found.addresses} == set(wanted)
    assert (found.rcode, found.truncated, len(found.addresses)) == (dns.rcode.NOERROR, False, len(wanted))


@given(names, st.binary(max_size=64), st.integers(0, 200))
def test_no_bytes_break_the_reader(name: str, data: bytes, length: int) -> None:
    asked = question(7, name, "A")
    reply(data, asked, "A")
    reply(asked[:2] + b"\x80\0\0\1\0\x09\0\0\0\0" + asked[12:] + data, asked, "A")
    whole = response(asked, name, [ADDRESS], []).to_wire()
    assert length >= len(whole) or reply(whole[:length], asked, "A") is None


def test_the_answer_to_another_question_is_none() -> None:
    asked = question(7, "a.example", "A")
    answer = response(asked, "b.example", [ADDRESS], []).to_wire()
    assert reply(answer, question(8, "a.example", "A"), "A") is None
    assert reply(answer, question(7, "c.example", "A"), "A") is None
    assert reply(answer, question(7, "a.example", "AAAA"), "AAAA") is None
    assert reply(asked, asked, "A") is None  # a question is no answer
    assert reply(answer, question(7, "A.Example", "A"), "A") is not None


def test_an_error_is_read_with_its_question_and_without() -> None:
    asked = question(7, "a.example", "A")
    answer = dns.message.make_response(dns.message.from_wire(asked))
    answer.set_rcode(dns.rcode.REFUSED)
    answer.flags |= dns.flags.TC
    assert reply(answer.to_wire(), asked, "A") == (dns.rcode.REFUSED, True, ())
    answer.question = []
    assert reply(answer.to_wire(), asked, "A") == (dns.rcode.REFUSED, True, ())


@pytest.mark.parametrize("name", ["", "a..example", ".example", "x" * 64, ".".join(["x" * 63] * 4), "\u00e4.example"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a domain name"):
        question(7, name, "A")

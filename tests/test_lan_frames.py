"""The frames of the probe from the LAN, and which packets are taken for its own."""

import struct
from ipaddress import IPv4Address, ip_address

import pytest

from gfwtools.diagnose.lan_frames import RST, SYN, Flow, arp_claim, arp_probe, filter_of, parse

MAC, GATEWAY = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
FOUR = Flow(ip_address("192.168.7.254"), ip_address("198.18.0.10"), 40000, 0xFFFFFFFF, MAC, GATEWAY)
SIX = Flow(ip_address("fd00:1::9"), ip_address("2001:db8:bad::10"), 40000, 7, MAC, GATEWAY)


def total(data: bytes) -> int:
    """The one's complement sum: 0xffff where the checksum in the data is right (RFC 1071)."""
    found = sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))
    while found >> 16:
        found = (found & 0xFFFF) + (found >> 16)
    return found


def run(code: bytes, packet: bytes) -> int:
    """Classic BPF, as far as the filter uses it."""
    program = list(struct.iter_unpack("=HBBI", code))
    place = accumulator = 0
    while True:
        operation, if_true, if_false, value = program[place]
        place += 1
        if operation == 0x20:
            if value + 4 > len(packet):
                return 0
            accumulator = int.from_bytes(packet[value : value + 4])
        elif operation == 0x15:
            place += if_true if accumulator == value else if_false
        else:
            return int(value)


@pytest.mark.parametrize("flags", [SYN, RST])
def test_the_checksums_of_a_frame_are_right(flags: int) -> None:
    packet = FOUR.frame(flags, FOUR.sequence)[14:]
    assert total(packet[:20]) == 0xFFFF
    assert total(packet[12:20] + struct.pack("!HH", 6, len(packet) - 20) + packet[20:]) == 0xFFFF
    packet = SIX.frame(flags, SIX.sequence)[14:]
    assert total(packet[8:40] + struct.pack("!II", len(packet) - 40, 6) + packet[40:]) == 0xFFFF


@pytest.mark.parametrize("flow", [FOUR, SIX])
def test_the_packet_is_known_again_whoever_translated_its_source(flow: Flow) -> None:
    other = Flow(type(flow.client)(1), flow.site, 1025, flow.sequence, MAC, GATEWAY)
    seen = parse(other.frame(SYN, flow.sequence)[14:], flow)
    assert seen is not None
    assert (seen.answer, seen.destination) == (False, flow.site)
    assert parse(other.frame(SYN, flow.sequence ^ 1)[14:], flow) is None


@pytest.mark.parametrize("flow", [FOUR, SIX])
def test_an_answer_is_known_by_what_it_acknowledges(flow: Flow) -> None:
    site = bytearray(
        Flow(flow.site, flow.client, 443, 1, GATEWAY, MAC).frame(SYN, 1, flow.sequence + 1 & 0xFFFFFFFF)[14:]
    )
    seen = parse(bytes(site), flow)
    assert seen is not None
    assert (seen.answer, seen.destination) == (True, flow.client)


@pytest.mark.parametrize("packet", [b"", b"\x45", b"\x60" + bytes(30), bytes(60), b"\x45" + bytes(59)])
def test_a_packet_that_is_cut_short_is_of_another_connection(packet: bytes) -> None:
    assert parse(packet, FOUR) is None
    assert parse(packet, SIX) is None


@pytest.mark.parametrize("flow", [FOUR, SIX])
def test_the_filter_takes_packets_of_the_site_and_no_others(flow: Flow) -> None:
    code = filter_of(flow.site)
    assert run(code, flow.frame(SYN, 1)[14:])
    assert run(code, Flow(flow.site, flow.client, 443, 1, MAC, MAC).frame(SYN, 1)[14:])
    other = type(flow.site)(int(flow.site) ^ 1)
    assert not run(code, Flow(flow.client, other, 1, 1, MAC, MAC).frame(SYN, 1)[14:])
    assert not run(code, Flow(other, flow.client, 1, 1, MAC, MAC).frame(SYN, 1)[14:])


def test_who_answers_an_arp_probe_is_known_and_the_probe_claims_nothing() -> None:
    probe = arp_probe(IPv4Address("192.168.7.254"), MAC)
    assert arp_claim(probe) is None
    assert arp_claim(probe[:28] + IPv4Address("192.168.7.254").packed + probe[32:]) == IPv4Address("192.168.7.254")
    assert arp_claim(probe[:20]) is None

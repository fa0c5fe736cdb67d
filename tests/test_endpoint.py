"""The peers of a wg-quick(8) file whose endpoint has a name."""

import pytest

from gfwtools.update.endpoint import NamedPeer, named_peers

KEY = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU="
OTHER = "MTIzNDU2Nzg5MGFiY2RlZmdoaWprbG1ub3BxcnN0dXY="


def peer(endpoint: str, key: str = KEY) -> str:
    return f"[Peer]\nPublicKey = {key}\nAllowedIPs = 0.0.0.0/0\nEndpoint = {endpoint}\n"


def test_a_peer_whose_endpoint_is_a_name_is_found() -> None:
    text = f"[Interface]\nPrivateKey = {OTHER}\nAddress = 10.0.0.2/24\n\n{peer('vpn.example.net:51820')}"
    assert named_peers(text) == [NamedPeer(KEY, "vpn.example.net", 51820)]


def test_each_peer_has_its_own_name() -> None:
    text = peer("one.example:1") + peer("two.example:65535", OTHER)
    assert named_peers(text) == [NamedPeer(KEY, "one.example", 1), NamedPeer(OTHER, "two.example", 65535)]


def test_keys_and_sections_are_read_in_any_case_and_comments_are_left_out() -> None:
    text = f"  [PEER] # home\npublickey={KEY}\n#Endpoint = old.example:1\nENDPOINT=vpn.example:51820 # by DDNS\n"
    assert named_peers(text) == [NamedPeer(KEY, "vpn.example", 51820)]


@pytest.mark.parametrize("endpoint", ["203.0.113.1:51820", "[2001:db8::1]:51820"])
def test_an_endpoint_that_is_an_address_has_no_name_to_follow(endpoint: str) -> None:
    assert named_peers(peer(endpoint)) == []


@pytest.mark.parametrize(
    "endpoint",
    ["", "vpn.example", "vpn.example:", "vpn.example:0", "vpn.example:65536", "-x:1", "a b:1", "a;b:1", ":1"],
)
def test_what_is_no_endpoint_is_skipped(endpoint: str) -> None:
    assert named_peers(peer(endpoint)) == []


@pytest.mark.parametrize("key", ["", "short", f"{KEY}x", "-" * 44])
def test_what_is_no_key_is_skipped(key: str) -> None:
    assert named_peers(peer("vpn.example:1", key)) == []

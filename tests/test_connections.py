"""Which connections the plumbing of now would send another way than they began."""

from ipaddress import ip_address, ip_network
from pathlib import Path

from gfwtools.config.model import Config, Host, Paths, PolicyConfig
from gfwtools.plumbing import record
from gfwtools.plumbing.connections import Networks, gone
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.wanted import Masked, connmarks

ONE = PolicyConfig()
TWO = PolicyConfig(name="work", set="work", mark=0xBEEF, table=51900, interface="wg1")


def test_an_address_is_found_in_networks_of_any_length_and_of_its_own_family() -> None:
    inside = Networks(map(ip_network, ("91.108.4.0/22", "8.8.8.8/32", "2001:db8::/32")))
    for address in ("91.108.7.255", "8.8.8.8", "2001:db8:7::1"):
        assert ip_address(address) in inside
    for address in ("91.108.8.0", "8.8.8.9", "2001:db9::1", "::808:808"):
        assert ip_address(address) not in inside


def test_connections_of_a_policy_that_stays_as_it_is_are_kept() -> None:
    assert gone(connmarks(Config(policies=(ONE,))), connmarks(Config(policies=(ONE, TWO)))) == ()


def test_connections_of_a_policy_that_moves_are_dropped_by_our_bits_and_its_mark() -> None:
    before = connmarks(Config(policies=(ONE, TWO)))
    for change in ({"interface": "wg2"}, {"table": 7}):
        after = connmarks(Config(policies=(ONE, TWO._replace(**change))))
        assert gone(before, after) == (Masked(0x2000000, 0xF000000), Masked(0xBEEF, 0xFFFFFFFF))


def test_with_other_bits_or_another_order_the_connections_of_all_are_dropped() -> None:
    before = connmarks(Config(policies=(ONE, TWO)))
    moved = Config(host=Host(connmark_mask=0xF0), policies=(ONE, TWO))
    turned = Config(policies=(TWO, ONE))
    for after in (moved, turned):
        dropped = gone(before, connmarks(after))
        assert {Masked(0x1000000, 0xF000000), Masked(0x2000000, 0xF000000)} <= set(dropped)


def test_the_record_knows_the_connection_marks_again(tmp_path: Path) -> None:
    known = Record(boot="b", connmarks=connmarks(Config(policies=(ONE, TWO))))
    record.save(Paths(tmp_path), known)
    assert record.load(Paths(tmp_path), "b") == known

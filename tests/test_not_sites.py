"""Which addresses an answer for a listed name may not have."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gfwtools.config.model import PolicyConfig, Upstream
from gfwtools.render.not_sites import NOT_SITES, is_no_site, refused_answers


def is_refused(text: str, policy: PolicyConfig) -> bool:
    address = ip_address(text)
    return any(address in network for network in refused_answers(policy))


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.44.0.9", "100.64.0.1", "127.0.0.1", "169.254.1.1", "172.31.0.1", "192.168.1.1", "224.0.0.1"),
        *("255.255.255.255", "::", "::1", "::10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "fe80::1", "fec0::1", "ff02::1"),
    ],
)
def test_an_address_that_is_no_sites_is_refused(address: str) -> None:
    assert is_refused(address, PolicyConfig())


@pytest.mark.parametrize("address", ["8.8.8.8", "198.18.0.10", "203.0.113.7", "2001:db8::1", "2606:4700::1111"])
def test_an_address_of_a_site_or_for_documentation_is_not(address: str) -> None:
    assert not is_refused(address, PolicyConfig())


@given(st.ip_addresses(network="10.0.0.0/8"), st.integers(9, 32))
def test_of_a_private_network_all_but_what_the_policy_names_is_refused(address: object, length: int) -> None:
    named = ip_network(f"{address}/{length}", strict=False)
    for policy in (PolicyConfig(routes=(named,)), PolicyConfig(seeds=(named,))):
        left = refused_answers(policy)
        assert not any(network.overlaps(named) for network in left if network.version == 4)
        assert (
            sum(n.num_addresses for n in left if n.version == 4)
            == sum(n.num_addresses for n in NOT_SITES if n.version == 4) - named.num_addresses
        )


def test_a_route_to_a_whole_private_network_allows_all_of_it() -> None:
    policy = PolicyConfig(routes=(ip_network("10.0.0.0/7"),))
    assert not is_refused("10.1.2.3", policy)
    assert is_refused("192.168.1.1", policy)


def test_a_resolver_of_the_other_end_may_give_private_addresses() -> None:
    assert refused_answers(PolicyConfig(upstream=(Upstream(ip_address("10.64.0.1")),))) == ()


@pytest.mark.parametrize(("network", "is_one"), [("10.0.0.0/8", True), ("10.0.0.0/7", False), ("8.8.8.8", False)])
def test_a_network_is_no_sites_where_all_of_it_is(network: str, is_one: bool) -> None:
    assert is_no_site(ip_network(network)) is is_one

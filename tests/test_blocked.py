"""Is a name blocked here? The judgement over what was seen; tests/e2e/test_looks_blocked.py has real connections."""

from collections.abc import Sequence
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from gfwtools.config.model import Address
from gfwtools.diagnose.blocked import Answers, Reached, Try, forged_addresses, judge
from gfwtools.diagnose.link import Link

SITE, OTHER, LIE = map(ip_address, ("93.184.216.34", "93.184.216.35", "93.46.8.89"))
NOTHING, CONNECTED, ANSWERED, TRUSTED = Reached


def seen(address: Address, port: int, direct: Reached, tunnelled: Reached) -> list[Try]:
    return [Try(address, port, False, direct, "so"), Try(address, port, True, tunnelled, "so")]


def judged(local: Sequence[Address], clean: Sequence[Address], *tries: Sequence[Try]) -> Link:
    flat = [each for some in tries for each in some]
    return judge("x.example", Answers(tuple(local), tuple(clean)), flat, forged_addresses())


def state(local: Sequence[Address], clean: Sequence[Address], *tries: Sequence[Try]) -> str:
    return judged(local, clean, *tries).state.value


def test_different_answers_that_both_work_are_no_sign() -> None:
    found = judged([SITE], [OTHER], seen(SITE, 443, TRUSTED, TRUSTED), seen(OTHER, 443, TRUSTED, TRUSTED))
    assert found.state == "OK"
    assert "differ" not in found.found


def test_a_known_forged_answer_that_works_nowhere_is_blocked() -> None:
    found = judged([LIE], [SITE], seen(LIE, 443, NOTHING, NOTHING), seen(SITE, 443, NOTHING, TRUSTED))
    assert found.state == "BROKEN"
    assert found.remedy == "gfwtools deny x.example"
    for sign in ("93.46.8.89 is known from forged answers", "93.46.8.89 is not the site's", "the answers differ"):
        assert sign in found.found


def test_a_known_forged_address_whose_site_works_is_not_blocked() -> None:
    assert state([LIE], [SITE], seen(LIE, 443, TRUSTED, NOTHING), seen(SITE, 443, TRUSTED, TRUSTED)) == "OK"


def test_one_connection_that_fails_is_no_verdict() -> None:
    found = judged([SITE], [SITE], seen(SITE, 443, NOTHING, TRUSTED), seen(SITE, 80, NOTHING, NOTHING))
    assert found.state == "UNKNOWN"
    assert found.found.startswith("not enough for a verdict: ")


def test_two_ports_that_fail_are_a_verdict() -> None:
    assert state([SITE], [SITE], seen(SITE, 443, NOTHING, TRUSTED), seen(SITE, 80, NOTHING, ANSWERED)) == "BROKEN"


def test_a_handshake_that_works_only_without_the_name_is_a_verdict() -> None:
    nameless = Try(SITE, 443, False, ANSWERED, "so", named=False)
    assert state([SITE], [SITE], seen(SITE, 443, CONNECTED, TRUSTED), [nameless]) == "BROKEN"


def test_a_page_in_place_of_the_site_is_seen_by_its_certificate() -> None:
    assert state([OTHER], [SITE], seen(OTHER, 443, ANSWERED, ANSWERED), seen(SITE, 443, CONNECTED, TRUSTED)) == "BROKEN"


def test_a_site_whose_certificate_nobody_trusts_is_not_blocked() -> None:
    assert state([SITE], [SITE], seen(SITE, 443, ANSWERED, ANSWERED)) == "OK"


def test_one_address_of_two_that_works_is_enough() -> None:
    tries = (seen(SITE, 443, NOTHING, TRUSTED), seen(OTHER, 443, TRUSTED, TRUSTED))
    assert state([SITE, OTHER], [SITE, OTHER], *tries) == "OK"


def test_a_private_answer_that_works_is_a_name_of_two_networks() -> None:
    inside = ip_address("10.1.2.3")
    assert state([inside], [SITE], seen(inside, 443, TRUSTED, NOTHING), seen(SITE, 443, NOTHING, TRUSTED)) == "OK"


def test_an_answer_of_this_host_alone_is_no_verdict() -> None:
    found = judged([ip_address("0.0.0.0")], [SITE], seen(SITE, 443, TRUSTED, TRUSTED))
    assert found.state == "UNKNOWN"
    assert "0.0.0.0 is no address of the Internet" in found.found


def test_no_answer_here_and_a_site_that_is_reached_by_the_tunnel_only_is_blocked() -> None:
    assert state([], [SITE], seen(SITE, 443, NOTHING, TRUSTED)) == "BROKEN"


def test_the_clean_resolvers_address_where_nothing_answers_is_not_blocked() -> None:
    assert state([SITE], [SITE], seen(SITE, 443, NOTHING, NOTHING)) == "OK"


def test_what_could_not_be_tried_is_not_known() -> None:
    unmade = Try(SITE, 443, True, NOTHING, "run as root", made=False)
    found = judged([SITE], [SITE], [Try(SITE, 443, False, NOTHING, "silence"), unmade])
    assert (found.state, found.found) == ("UNKNOWN", "not compared: run as root")


addresses = st.lists(st.sampled_from([SITE, OTHER, LIE]), unique=True)
tries = st.builds(Try, st.sampled_from([SITE, OTHER, LIE]), st.sampled_from([443, 80]), st.booleans(),
                  st.sampled_from(Reached), st.just("so"), st.booleans(), st.booleans())  # fmt: skip


@given(addresses, addresses, st.lists(tries, max_size=8))
@settings(max_examples=200)
def test_blocked_always_means_that_a_direct_connection_fails_which_the_tunnel_has(
    local: list[Address], clean: list[Address], made: list[Try]
) -> None:
    if state(local, clean, made) == "BROKEN":
        assert any(each.made and each.tunnelled and each.reached >= ANSWERED for each in made)
        assert any(each.made and each.named and not each.tunnelled and each.reached < TRUSTED for each in made)
        assert len(judged(local, clean, made).found.split("; ")) > 1


def test_every_line_of_the_file_of_forged_addresses_is_one() -> None:
    assert len(forged_addresses()) > 20

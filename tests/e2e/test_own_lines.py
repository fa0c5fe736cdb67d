"""Lines of the user's own that decide a listed name in our place are named, with file and line, by every verdict."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from lab import BLOCKED, CLEAN, ISP_DNS, POISON, TUNNEL, Lab

pytestmark = pytest.mark.e2e

PAIRS = list(itertools.product(("iptables", "nftables"), ("paired", "split")))
OWN = "/etc/dnsmasq.d/own.conf"
WWW = "www.blocked.example"
#: What the user wrote -> the files, and the name that it decides. The last file and its last line are the place.
OVERRIDES: dict[str, tuple[dict[str, str], str]] = {
    "server": ({OWN: f"# the ISP's\n\nserver=/blocked.example/{ISP_DNS}\n"}, "blocked.example"),
    "server below": ({OWN: f"server=/free.example/www.blocked.example/{ISP_DNS}\n"}, WWW),
    "the usual servers": ({OWN: "server=/blocked.example/#\n"}, "blocked.example"),
    "address": ({OWN: f"address=/blocked.example/{POISON}\n"}, "blocked.example"),
    "local below": ({OWN: f"local=/{WWW}/\n"}, WWW),
    "host-record": ({OWN: f"host-record={WWW},{POISON}\n"}, WWW),
    "cname": ({OWN: f"cname={WWW},free.example\n"}, WWW),
    "/etc/hosts": ({"/etc/hosts": f"127.0.0.1 localhost\n{POISON} free.example blocked.example\n"}, "blocked.example"),
    "addn-hosts": (
        {OWN: "addn-hosts=/etc/own-hosts\n", "/etc/own-hosts": f"{POISON} {WWW}\n"},
        WWW,
    ),
    "conf-file": (
        {OWN: "conf-file=/etc/own.txt\n", "/etc/own.txt": f"server=/blocked.example/{ISP_DNS}\n"},
        "blocked.example",
    ),
    "conf-dir": (
        {OWN: "conf-dir=/etc/own.d,*.lines\n", "/etc/own.d/a.lines": f"server=/blocked.example/{ISP_DNS}\n"},
        "blocked.example",
    ),
    "expand-hosts": (
        {OWN: "domain=blocked.example\nexpand-hosts\n", "/etc/hosts": f"127.0.0.1 localhost\n{POISON} www\n"},
        WWW,
    ),
    "auth-zone": ({OWN: "auth-server=ns.home,lan0\nauth-zone=blocked.example\n"}, "blocked.example"),
}  # fmt: skip
#: Lines about addresses: they change what the clean resolver has said.
CHANGING = [
    f"alias={BLOCKED},{POISON}",
    f"bogus-nxdomain={BLOCKED}",
    f"ignore-address={BLOCKED}",
    "filter-A",
]
#: What is the user's own business, or says what we say.
HARMLESS = {
    "the list's own exception": f"server=/ok.blocked.example/{ISP_DNS}\naddress=/ok.blocked.example/{POISON}\n",
    "a name that no list has": f"server=/free.example/{ISP_DNS}\nipset=/free.example/gfwlist\n",
    "a name above": f"server=/example/{ISP_DNS}\naddress=/#/{POISON}\n",
    "of the same domain and without an address": "local=/blocked.example/\n",
    "names that the user blocks": f"address=/ads.blocked.example/0.0.0.0\naddress=/{WWW}/\n",
}


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with Lab() as lab:
        lab.configure(*request.param)
        lab.bootstrap()
        yield lab


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test leaves no line to the next one."""
    yield
    if "lab" in request.fixturenames:
        host = request.getfixturevalue("lab").gateway
        host.run("sh", "-c", f"rm -rf {OWN} /etc/own*; echo 127.0.0.1 localhost >/etc/hosts; sh /etc/restart-dns")


def is_paired(lab: Lab) -> bool:
    return 'layout = "paired"' in lab.gateway.read("/etc/gfwtools/config.toml")


def own(lab: Lab, files: dict[str, str]) -> str:
    """Write the user's files and have dnsmasq read them; returns the place of the last line."""
    for path, text in files.items():
        lab.gateway.write(path, text)
    lab.gateway.run("sh", "/etc/restart-dns")
    path, text = list(files.items())[-1]
    return f"{path} line {len(text.splitlines())}"


def pieces(lab: Lab, code: int) -> list[dict[str, Any]]:
    """The pieces of check host that are about lines of the user's."""
    found = json.loads(lab.gateway.gfwtools("check", "host", "--json", code=code).stdout)
    return [piece for piece in found if piece["name"].startswith("own lines")]


def live(lab: Lab, name: str, code: int) -> dict[str, Any]:
    chain: dict[str, Any] = json.loads(
        lab.gateway.gfwtools("check", "domain", "--live", "--json", name, code=code).stdout
    )
    return chain


def link(chain: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in chain["links"] if item["name"] == name)


@pytest.mark.parametrize("what", OVERRIDES)
def test_every_command_that_judges_names_the_line_that_overrides_the_list(lab: Lab, what: str) -> None:
    files, name = OVERRIDES[what]
    place = own(lab, files)
    path = place.partition(" ")[0]
    (piece,) = pieces(lab, code=1)
    assert (piece["state"], place in piece["detail"]) == ("MISMATCH", True)
    assert piece["remedy"].startswith("remove ")
    assert path in piece["remedy"]
    chain = live(lab, name, code=1)
    assert chain["broken"] == "own lines"
    assert place in link(chain, "own lines")["found"]
    assert path in link(chain, "own lines")["remedy"]
    assert "HUP" not in piece["remedy"] + link(chain, "own lines")["remedy"]
    updated = lab.gateway.gfwtools("update", "--reload")
    assert place in updated.stderr


def test_a_list_of_the_users_own_sets_counts_where_it_is_read_before_ours(lab: Lab) -> None:
    keyword = "ipset" if "iptables" in lab.gateway.read("/etc/gfwtools/config.toml") else "nftset"
    value = "other" if keyword == "ipset" else "4#inet#own#other"
    early = "/etc/dnsmasq.d/a.conf"
    late = "/etc/dnsmasq.d/own.conf"
    own(lab, {late: f"{keyword}=/blocked.example/{value}\n"})
    assert [piece["state"] for piece in pieces(lab, code=0)] == ["OK"]
    own(lab, {late: f"{keyword}=/{WWW}/{value}\n"})
    assert [piece["state"] for piece in pieces(lab, code=int(is_paired(lab)))] == [
        "MISMATCH" if is_paired(lab) else "OK"
    ]
    lab.gateway.run("rm", late)
    place = own(lab, {early: f"{keyword}=/blocked.example/{value}\n"})
    found = pieces(lab, code=int(is_paired(lab)))
    lab.gateway.run("rm", early)
    assert (place in found[0]["detail"]) == is_paired(lab)


@pytest.mark.parametrize("what", HARMLESS)
def test_lines_that_override_nothing_leave_every_verdict_green(lab: Lab, what: str) -> None:
    own(lab, {OWN: HARMLESS[what]})
    assert [piece["state"] for piece in pieces(lab, code=0)] == ["OK"]
    assert live(lab, "blocked.example", code=0)["broken"] is None
    assert "own.conf" not in lab.gateway.gfwtools("update", "--reload").stderr


def test_the_same_clean_resolver_is_no_override(lab: Lab) -> None:
    ours = CLEAN if is_paired(lab) else "127.0.0.1#5354"
    own(lab, {OWN: f"server=/blocked.example/{ours}\nserver=/{WWW}/{ours}\n"})
    assert [piece["state"] for piece in pieces(lab, code=0)] == ["OK"]
    assert live(lab, WWW, code=0)["broken"] is None


def test_the_remedy_of_a_hosts_file_brings_the_tunnel_back(lab: Lab) -> None:
    own(lab, OVERRIDES["/etc/hosts"][0])
    assert lab.open(lab.gateway, "blocked.example") != TUNNEL
    remedy = link(live(lab, "blocked.example", code=1), "own lines")["remedy"]
    assert remedy.startswith("remove blocked.example from line 2 of /etc/hosts, then: ")
    lab.gateway.run("sh", "-ec", f"sed -i '2s/ blocked.example//' /etc/hosts; {remedy.partition('then: ')[2]}")
    lab.gateway.wait_for_dns()
    assert live(lab, "blocked.example", code=0)["broken"] is None
    assert lab.open(lab.gateway, "blocked.example") == TUNNEL


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_bootstrap_names_the_line_and_does_not_say_that_sites_take_the_tunnel(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        place = own(lab, OVERRIDES["server"][0])
        done = lab.bootstrap(code=1)
        assert place in done.stderr
        assert "blocked sites go through the tunnel" not in done.stdout


def test_a_line_on_the_command_line_of_dnsmasq_is_named(lab: Lab) -> None:
    word = f"--server=/blocked.example/{ISP_DNS}"
    restart = lab.gateway.read("/etc/restart-dns")
    lab.gateway.write("/etc/restart-dns", restart.replace("--pid-file=/run/dnsmasq", f"{word} --pid-file=/run/dnsmasq"))
    lab.gateway.run("sh", "/etc/restart-dns")
    (piece,) = pieces(lab, code=1)
    lab.gateway.write("/etc/restart-dns", restart)
    assert piece["detail"] == f"override the list: the command line of dnsmasq: {word[2:]}"


def test_a_resolver_that_dnsmasq_still_asks_after_the_line_has_gone_is_named(lab: Lab) -> None:
    own(lab, OVERRIDES["server"][0])
    lab.gateway.run("rm", OWN)
    chain = live(lab, "blocked.example", code=1)
    assert chain["broken"] == "upstream"
    assert f"{ISP_DNS}#53" in link(chain, "upstream")["found"]
    lab.gateway.run("sh", "/etc/restart-dns")
    assert (
        link(live(lab, "blocked.example", code=0), "upstream")["found"]
        == "dnsmasq asks the clean resolver and no other"
    )


def test_an_address_that_dnsmasq_still_has_after_the_line_has_gone_needs_a_restart(lab: Lab) -> None:
    own(lab, OVERRIDES["address"][0])
    lab.gateway.run("rm", OWN)
    chain = live(lab, "blocked.example", code=1)
    assert chain["broken"] == "answer"
    assert f"A {POISON} is dnsmasq's own answer" in link(chain, "answer")["found"]
    lab.gateway.run("sh", "-ec", link(chain, "answer")["remedy"])
    lab.gateway.wait_for_dns()
    assert live(lab, "blocked.example", code=0)["broken"] is None


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_line_in_the_file_of_the_second_dnsmasq_is_named(backend: str) -> None:
    path = "/etc/gfwtools/dns/gfwlist.conf"
    with Lab() as lab:
        lab.configure(backend, "split")
        lab.bootstrap()
        place = own(lab, {path: lab.gateway.read(path) + f"server=/blocked.example/{ISP_DNS}\n"})
        (piece,) = pieces(lab, code=1)
        assert place in piece["detail"]
        assert live(lab, "blocked.example", code=1)["broken"] == "own lines"


@pytest.mark.parametrize(("backend", "layout"), PAIRS)
def test_bootstrap_fails_where_questions_for_the_clean_resolver_reach_another_one(backend: str, layout: str) -> None:
    with Lab() as lab:
        lab.configure(backend, layout)
        away = f"iptables -t nat -A OUTPUT -p udp -d {CLEAN} --dport 53 -j DNAT --to {ISP_DNS}"
        lab.gateway.run("sh", "-c", away)
        done = lab.bootstrap(code=1)
        assert f"{ISP_DNS}#53, whose answers can be forged" in done.stderr
        assert "blocked sites go through the tunnel" not in done.stdout


@pytest.mark.parametrize("line", CHANGING)
def test_a_line_that_changes_the_clean_answer_is_named_and_its_remedy_works(lab: Lab, line: str) -> None:
    place = own(lab, {OWN: f"# mine\n{line}\n"})
    chain = live(lab, "blocked.example", code=1)
    assert chain["broken"] == "own lines"
    assert place in link(chain, "own lines")["found"]
    remedy = link(chain, "own lines")["remedy"]
    assert remedy.startswith(f"remove line 2 of {OWN}, then: ")
    lab.gateway.run("sh", "-ec", f"sed -i 2d {OWN}; {remedy.partition('then: ')[2]}")
    lab.gateway.wait_for_dns()
    assert live(lab, "blocked.example", code=0)["broken"] is None
    assert lab.open(lab.gateway, "blocked.example") == TUNNEL


def test_lines_that_a_program_prints_make_the_verdict_unknown(lab: Lab) -> None:
    lab.gateway.write("/etc/own.sh", f"#!/bin/sh\necho server=/free.example/{ISP_DNS}\n", 0o755)
    place = own(lab, {OWN: "conf-script=/etc/own.sh\n"})
    (piece,) = pieces(lab, code=0)
    assert (piece["state"], place in piece["detail"]) == ("UNKNOWN", True)

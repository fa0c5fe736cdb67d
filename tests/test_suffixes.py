"""The Public Suffix List is tldextract's, read without tldextract."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st
from strategies import names
from tldextract import TLDExtract

from gfwtools.lists.suffixes import Suffixes, bundled, bundled_path

EXTRACT = TLDExtract(suffix_list_urls=(), cache_dir=None, include_psl_private_domains=True, fallback_to_snapshot=True)


def _by_tldextract(name: str) -> str:
    found = EXTRACT(name)
    return f"{found.domain}.{found.suffix}" if found.domain and found.suffix else name


def _same(name: str) -> None:
    # An unknown top-level domain is a suffix (the list's own rule "*"); tldextract calls it none.
    if bundled().is_known(name):
        assert bundled().registrable(name) == _by_tldextract(name)


@given(names)
def test_registrable_domains_are_those_of_tldextract(name: str) -> None:
    _same(name)


def test_every_suffix_of_the_list_gives_what_tldextract_gives() -> None:
    text = bundled_path().read_text(encoding="utf-8")
    rules = [line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith("//")]
    for rule in rules:
        name = rule.lstrip("!").replace("*", "any").encode("idna").decode() if rule.isascii() else None
        if name:
            _same(name)
            _same(f"x.{name}")
            _same(f"www.x.{name}")


def test_suffixes_in_unicode_are_found_by_their_a_labels() -> None:
    assert bundled().registrable("www.xn--55qx5d.cn") == "www.xn--55qx5d.cn"  # 公司.cn is a suffix
    assert bundled().registrable("a.www.xn--55qx5d.cn") == "www.xn--55qx5d.cn"


UNICODE = ["公司.cn", "中国", "*.møre-og-romsdal.no", "com", "*.個人.hk", "!www.個人.hk", "!www.中国"]


@given(st.permutations([f"{below}{rule.lstrip('*.!')}" for rule in UNICODE for below in ("", "x.", "y.x.")]))
def test_suffixes_in_unicode_are_those_in_a_labels_whatever_is_asked_first(names: list[str]) -> None:
    unicode, a_labels = Suffixes(UNICODE, []), Suffixes(map(_encoded, UNICODE), [])
    for name in map(_encoded, names):
        for question in ("is_suffix", "is_icann", "has_suffixes", "is_known", "registrable"):
            assert getattr(unicode, question)(name) == getattr(a_labels, question)(name), (question, name)


def _encoded(rule: str) -> str:
    mark = rule[: len(rule) - len(rule.lstrip("*.!"))]
    return mark + rule.removeprefix(mark).encode("idna").decode()


def test_private_suffixes_count_and_are_told_from_icanns() -> None:
    assert bundled().registrable("www.someone.github.io") == "someone.github.io"
    assert bundled().is_suffix("github.io")
    assert not bundled().is_icann("github.io")
    assert bundled().is_icann("gov.tw")
    assert bundled().is_icann("google")


@given(st.sampled_from(["com", "co.uk", "github.io", "ck", "google"]))
def test_a_suffix_has_no_registrable_domain_and_stays_as_it_is(name: str) -> None:
    assert bundled().registrable(name) == name


def test_the_list_is_read_without_importing_tldextract_or_any_network() -> None:
    program = (
        "import sys, gfwtools; gfwtools.compile('||a.example.co.uk').lookup('example.co.uk'); "
        "print([m for m in ('tldextract', 'requests', 'httpx', 'socket', 'ssl') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"

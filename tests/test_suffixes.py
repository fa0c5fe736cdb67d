"""The Public Suffix List is tldextract's, read without tldextract."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tldextract
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
    path = bundled_path()
    assert path
    text = path.read_text(encoding="utf-8")
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


#: Answers every question for every rule of the list, for what is below it and for a name that no rule knows, with each
#: way to the network closed.
ANSWERS = """
import socket, sys
from pathlib import Path
def closed(*args, **kwargs):
    raise AssertionError("the network was used")
socket.socket.connect = socket.getaddrinfo = closed
from gfwtools.lists.suffixes import bundled, bundled_path, bundled_stamp
found, stamp = bundled(), bundled_stamp()
names = {"localhost", "a.b.invalid"}
for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines():
    if line and not line.startswith("//"):
        name = line.lstrip("!").replace("*", "any").encode("idna").decode()
        names.update((name, f"x.{name}", f"www.x.{name}"))
print(bundled_path() is None, "tldextract" in sys.modules, file=sys.stderr)
for name in sorted(names):
    print(name, found.registrable(name), found.is_suffix(name), found.is_icann(name), found.has_suffixes(name),
          found.is_known(name))
"""


def _answers(folder: Path, packages: Path | None, code: int = 0) -> "subprocess.CompletedProcess[str]":
    path = bundled_path()
    assert path
    home = folder / "home"
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")}
    if packages:
        environment["PYTHONPATH"] = str(packages)
    done = subprocess.run(
        [sys.executable, "-c", ANSWERS, str(path)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == code, done.stderr
    assert list(home.iterdir()) == []  # no cache is kept
    return done


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """The installed tldextract, which calls its list by another name, as a later one may do."""
    package = tmp_path / "packages" / "tldextract"
    shutil.copytree(Path(tldextract.__file__).parent, package)
    package.joinpath(".tld_set_snapshot").rename(package / "rules.dat")
    module = package / "suffix_list.py"
    text = module.read_text(encoding="utf-8")
    assert '".tld_set_snapshot"' in text
    module.write_text(text.replace('".tld_set_snapshot"', '"rules.dat"'), encoding="utf-8")
    return package


def test_a_list_under_another_name_gives_the_same_answers_and_asks_no_network(tmp_path: Path, other: Path) -> None:
    usual, renamed = _answers(tmp_path, None), _answers(tmp_path, other.parent)
    assert (usual.stderr, renamed.stderr) == ("False False\n", "True True\n")
    assert usual.stdout.count("\n") > 25_000
    assert renamed.stdout == usual.stdout


def test_without_any_list_the_error_says_what_to_install(tmp_path: Path, other: Path) -> None:
    other.joinpath("rules.dat").unlink()
    assert "pip install --force-reinstall tldextract" in _answers(tmp_path, other.parent, code=1).stderr

"""Messages are for people: no code decides by the words of one of ours."""

import ast
import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest
from paths import FIXTURES, REPO
from recorder import Recorder
from sources import SOURCES, tree

from gfwtools import errors as errors_module
from gfwtools.config.load import loads
from gfwtools.config.model import BackendName, Config, Host, PolicyConfig
from gfwtools.diagnose.link import Link, LinkState
from gfwtools.diagnose.plumbing import Seen, links
from gfwtools.dnsmasq.manager import manager_of
from gfwtools.errors import FetchError, GfwtoolsError, NoManagerError
from gfwtools.plumbing.backend import BACKENDS, Marking
from gfwtools.plumbing.facts import Facts, Interface
from gfwtools.plumbing.iptables import IptablesState
from gfwtools.plumbing.nftables import NftablesState
from gfwtools.plumbing.plan import Comparison
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.routing import Routing, RoutingState
from gfwtools.plumbing.rt_tables import NamesState, TableNames
from gfwtools.plumbing.survey import Survey
from gfwtools.plumbing.sysctl import Sysctls, SysctlState
from gfwtools.plumbing.wanted import wanted
from gfwtools.system.questions import Way
from gfwtools.update.update import update

#: Attributes of our own values that hold sentences.
SENTENCES = {"detail", "what", "remedy", "message", "outcome", "found", "expected", "why"}
READERS = {
    "startswith",
    "endswith",
    "removesuffix",
    "removeprefix",
    "partition",
    "rpartition",
    "split",
    "find",
    "index",
    "splitlines",
    "replace",
}
#: Methods of a compiled regular expression; the text is an argument.
PATTERNS = {"match", "fullmatch", "search", "findall", "finditer", "split", "sub", "subn"}
#: The errors whose words are ours; those of a library may have to be read.
OURS = {name for name, value in vars(errors_module).items() if isinstance(value, type)} | {"CommandError"}
#: Not ours: the words of the interpreter and of the dynamic linker, before anything of ours is loaded.
FOREIGN = {"gfwtools/__main__.py"}


def is_sentence(node: ast.expr, errors: set[str], held: frozenset[str] = frozenset()) -> bool:
    """Whether ``node`` is a sentence of ours: a field that holds one, the text of an error, or a variable with one.

    :param errors: the variables that hold an error of ours.
    :param held: the variables that hold a sentence.
    """
    match node:
        case ast.Name(id=name):
            return name in held
        case ast.Attribute(attr=name):
            return name in SENTENCES
        case ast.Call(func=ast.Name(id="str"), args=[ast.Name(id=name)]):
            return name in errors
    return False


def held_in(scope: ast.AST, errors: set[str]) -> frozenset[str]:
    """The variables that are only ever given a sentence."""
    given: dict[str, list[bool]] = {}
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            given.setdefault(node.targets[0].id, []).append(is_sentence(node.value, errors))
    return frozenset(name for name, sentences in given.items() if all(sentences))


def names_in(node: ast.expr) -> Iterator[str]:
    return (each.id for each in ast.walk(node) if isinstance(each, ast.Name))


def readings(tree: ast.AST) -> Iterator[ast.expr]:
    """The places in which a sentence is read: by a method of text, by `in`, `==` or a regular expression."""
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    errors = {node.name for node in handlers if node.name and node.type and OURS & set(names_in(node.type))}
    scopes = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.Module)]
    found: dict[ast.expr, None] = {}
    for scope in scopes:
        held = frozenset() if isinstance(scope, ast.Module) and len(scopes) > 1 else held_in(scope, errors)
        for node in ast.walk(scope):
            match node:
                case ast.Call(func=ast.Attribute(value=value, attr=method), args=arguments):
                    by_text = method in READERS and is_sentence(value, errors, held)
                    by_pattern = method in PATTERNS and any(is_sentence(each, errors, held) for each in arguments)
                    if by_text or by_pattern:
                        found[node] = None
                case ast.Compare(ops=[ast.In() | ast.NotIn()], comparators=[right]) if is_sentence(right, errors, held):
                    found[node] = None
                case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[ast.Constant(value=str(text))]):
                    if text and is_sentence(left, errors, held):
                        found[node] = None
    return iter(found)


@pytest.mark.parametrize(
    "line",
    [
        'x = piece.detail.startswith("not wanted")',
        'if "dns.manager" not in error.message: pass',
        're.fullmatch("ip rule .*", piece.detail)',
        'try: pass\nexcept HostError as e:\n    what, _, remedy = str(e).rpartition("; ")',
        'try: pass\nexcept HostError as e:\n    text = str(e)\n    x = text.removesuffix("; nothing was changed")',
        "x = _RULE.fullmatch(piece.detail)",
        'if piece.detail == "not wanted": pass',
    ],
)
def test_the_reading_of_a_sentence_is_found(line: str) -> None:
    assert len(list(readings(ast.parse(line)))) == 1


def test_no_code_reads_a_sentence_of_ours() -> None:
    found = [
        f"{path.relative_to(REPO)}:{node.lineno}: {ast.unparse(node)}"
        for path in SOURCES
        if str(path.relative_to(REPO)) not in FOREIGN
        for node in readings(tree(path))
    ]
    assert found == []


# ---------------------------------------------------------------- every message as a number


PEER = ip_address("203.0.113.9")
CONFIG = Config(
    host=Host(gateway=True),
    policies=(PolicyConfig(), PolicyConfig(name="work", set="work", mark=0xBEEF, table=51900, interface="wg1")),
)
FACTS = Facts(
    interfaces={
        "wg0": Interface("wg0", True, 1420, (ip_interface("10.0.0.2/24"),), (PEER,)),
        "wg1": Interface("wg1", True, 1400, (ip_interface("10.1.0.2/24"), ip_interface("fd00:1::2/64"))),
    }
)
SEEN = Seen(
    resolver=ip_address("8.8.8.8"),
    resolver_in_set=True,
    endpoints_in_set=frozenset({PEER}),
    endpoint_devices={PEER: "eth0"},
    own_mark=0,
    resolver_way=Way("wg0"),
    rule_before="",
    reverse_path_filter=2,
)


def whole(name: BackendName) -> Survey:
    """A host on which everything is as it is wanted."""
    backend = BACKENDS[name]
    shall = wanted(CONFIG, FACTS)
    empty = IptablesState() if name == "iptables" else NftablesState()
    state = backend.want(shall, FACTS.families, empty)
    names, values, routes = NamesState(Path("rt_tables"), None), SysctlState.of(shall, SysctlState()), Routing()
    return Survey(
        facts=FACTS,
        wanted=shall,
        record=Record(),
        names=Comparison(TableNames(), names, names),
        sysctls=Comparison(Sysctls(), values, values),
        routing=Comparison(routes, RoutingState.of(shall), RoutingState.of(shall)),
        backend=backend,
        markings=(Marking(backend, state, state),),
        learned={},
    )


def without_one(survey: Survey) -> Iterator[Survey]:
    """The same host, each time without one set, rule of a chain, ip rule, route or kernel parameter."""
    (marking,) = survey.markings
    there = marking.there
    states = [replace(there, sets={k: v for k, v in there.sets.items() if k != name}) for name in there.sets]
    chains = there.rules if marking.backend.name == "iptables" else {k: v.rules for k, v in there.chains.items()}
    for name, lines in chains.items():
        for number in range(len(lines)):
            left = (*lines[:number], *lines[number + 1 :])
            if marking.backend.name == "iptables":
                states.append(replace(there, rules={**there.rules, name: left}))
            else:
                states.append(replace(there, chains={**there.chains, name: replace(there.chains[name], rules=left)}))
    yield from (replace(survey, markings=(replace(marking, there=state),)) for state in states)
    routing, sysctls = survey.routing, survey.sysctls
    for rule in routing.there.rules:
        fewer = replace(routing.there, rules=tuple(each for each in routing.there.rules if each != rule))
        yield replace(survey, routing=replace(routing, there=fewer))
    for route in routing.there.routes:
        fewer = replace(routing.there, routes=tuple(each for each in routing.there.routes if each != route))
        yield replace(survey, routing=replace(routing, there=fewer))
    for key in sysctls.there.values:
        values = {name: value for name, value in sysctls.there.values.items() if name != key}
        yield replace(survey, sysctls=replace(sysctls, there=replace(sysctls.there, values=values)))


def with_one_more(survey: Survey) -> Survey:
    """The same host with an ip rule and the sets of a policy that the configuration has no more."""
    (marking,) = survey.markings
    there, routing = marking.there, survey.routing
    sets = {**there.sets, "old": next(iter(there.sets.values()))}
    rules = (*routing.there.rules, replace(routing.there.rules[0], preference=5190))
    return replace(
        survey,
        markings=(replace(marking, there=replace(there, sets=sets)),),
        routing=replace(routing, there=replace(routing.there, rules=rules)),
    )


def numbered(survey: Survey) -> Survey:
    """The same, with a number in place of each name, detail and remedy of its pieces."""
    copy = replace(survey)
    numbers = map(str, itertools.count(1))
    vars(copy)["pieces"] = [
        replace(piece, name=next(numbers), detail=next(numbers), remedy=next(numbers)) for piece in survey.pieces
    ]
    return copy


def judged(survey: Survey, policy: PolicyConfig) -> list[tuple[str, LinkState]]:
    seen = SEEN if policy.name == "gfwlist" else replace(SEEN, endpoint_devices={}, resolver_way=Way("wg1"))
    found: list[Link] = links(CONFIG, survey, policy, seen)
    return [(link.name, link.state) for link in found]


def broken(survey: Survey) -> set[str]:
    found = (link for policy in CONFIG.policies for link in judged(survey, policy))
    return {name for name, state in found if state is LinkState.BROKEN}


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_a_whole_host_has_no_broken_link_and_one_thing_more_breaks_none(backend: BackendName) -> None:
    assert broken(whole(backend)) | broken(with_one_more(whole(backend))) == set()


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
def test_each_link_of_the_plumbing_breaks_by_the_absence_of_something(backend: BackendName) -> None:
    found = set().union(*map(broken, without_one(whole(backend))))
    assert found == {"set", "jump", "mark", "endpoint", "route", "ip rule", "nat", "segments", "forwarding"}


@pytest.mark.parametrize("backend", ["iptables", "nftables"])
@pytest.mark.parametrize("policy", CONFIG.policies, ids=lambda policy: policy.name)
def test_the_links_are_judged_alike_when_every_message_is_a_number(backend: BackendName, policy: PolicyConfig) -> None:
    hosts = [whole(backend), with_one_more(whole(backend)), *without_one(whole(backend))]
    assert [judged(numbered(host), policy) for host in hosts] == [judged(host, policy) for host in hosts]


@pytest.fixture
def numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every error says a number."""
    made: Callable[..., None] = GfwtoolsError.__init__
    count = map(str, itertools.count(1))

    def number(self: GfwtoolsError, what: str = "", remedy: str = "") -> None:
        made(self, next(count), next(count) if remedy else "")

    monkeypatch.setattr(GfwtoolsError, "__init__", number)


@pytest.mark.usefixtures("numbers")
def test_a_missing_manager_is_known_without_its_message() -> None:
    with pytest.raises(NoManagerError):
        manager_of(Config(), Recorder())


def configured(root: Path, source: object) -> Config:
    return loads(f'[policy.gfwlist]\nsources = ["{source}"]\n', root=root)


@pytest.mark.usefixtures("numbers")
def test_a_list_that_shrank_is_refused_without_a_message(tmp_path: Path) -> None:
    config = configured(tmp_path, FIXTURES / "list.txt")
    update(config)
    kept = config.paths.list("gfwlist").read_bytes()
    (tmp_path / "short").write_bytes(b"[AutoProxy 0.2.9]\n||google.com\n")
    with pytest.raises(FetchError):
        update(configured(tmp_path, tmp_path / "short"))
    assert config.paths.list("gfwlist").read_bytes() == kept


@pytest.mark.usefixtures("numbers")
def test_the_starter_list_stands_in_without_a_message(tmp_path: Path) -> None:
    done, _ = update(configured(tmp_path, "http://127.0.0.1:1/"))
    assert [policy.obtained.starter for policy in done.policies] == [True]


# ---------------------------------------------------------------- the tree


def test_the_tree_at_the_head_of_the_module_is_the_tree() -> None:
    lines = (errors_module.__doc__ or "").split("::\n\n")[1].split("\n\n")[0].splitlines()
    shown = [(len(line) - len(line.lstrip()), line.split()[0]) for line in lines]

    def below(kind: type[GfwtoolsError], depth: int) -> Iterator[tuple[int, str]]:
        yield depth, kind.__name__
        for child in kind.__subclasses__():
            if not child.__name__.startswith("_"):
                yield from below(child, depth + 4)

    assert sorted(shown) == sorted(below(GfwtoolsError, 4))


def test_a_sentence_is_made_of_what_is_wrong_what_to_do_and_what_became_of_it() -> None:
    error = GfwtoolsError("it is down", "bring it up")
    error.outcome = "nothing was changed"
    assert str(error) == "it is down; bring it up; nothing was changed"

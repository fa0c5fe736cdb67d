"""``--root DIR`` is for files: no link leads out of DIR, and nothing reaches the kernel or dnsmasq of this host."""

from pathlib import Path

import pytest
from cli import gfwtools
from paths import FIXTURES
from trees import tree_of

from gfwtools.config.load import load
from gfwtools.config.model import Config, Paths
from gfwtools.config.walk import beneath
from gfwtools.errors import ConfigError, HostError
from gfwtools.update.update import update

LIST = str(FIXTURES / "list.txt")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ("update", "--reload"),
        ("up",),
        ("up", "--unless-down"),
        ("down",),
        ("bootstrap", "--yes"),
        ("teardown", "--yes"),
        ("trace", "192.0.2.1"),
    ],
    ids=" ".join,
)
def test_what_changes_this_host_is_refused_with_a_root(root: Path, words: tuple[str, ...]) -> None:
    marker = root / "ran"
    (root / "etc/gfwtools").mkdir(parents=True)
    restart = f'[dns]\nmanager = "command"\nrestart = ["touch", "{marker}"]\n'
    (root / "etc/gfwtools/config.toml").write_text(f'{restart}[policy.gfwlist]\nsources = ["{LIST}"]\n')
    before = tree_of(root)
    told = gfwtools(root, *words, code=2).stderr
    assert f"changes the kernel and dnsmasq of this host, and not of --root {root}; leave out one of the two" in told
    assert tree_of(root) == before


def test_the_library_refuses_a_reload_with_a_root_too(root: Path) -> None:
    with pytest.raises(HostError, match="would reach the kernel and dnsmasq of this host"):
        update(Config(root=root), sources=[LIST], reload=True)


def test_a_name_that_is_denied_below_a_root_reloads_nothing(root: Path) -> None:
    (root / "etc/dnsmasq.d").mkdir(parents=True)
    (root / "etc/dnsmasq.d/00-gfwtools.conf").write_text("# written by bootstrap\n")
    gfwtools(root, "update", "--source", LIST)
    assert f"only files below {root} are changed" in gfwtools(root, "deny", "mine.example").stdout


def test_another_spelling_of_the_real_root_is_no_other_root(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/")
    for root in (Path("//"), Path("/etc/.."), tmp_path / "link"):
        told = gfwtools(root, "trace", "no.such.name.example", code=None).stderr
        assert "--root" not in told


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("etc", "OUTSIDE"),
        ("etc/dnsmasq.d", "OUTSIDE"),
        ("etc/dnsmasq.d", "../../outside"),
        ("var", "OUTSIDE"),
        ("var/lib/gfwtools", "OUTSIDE"),
        ("var/lib/gfwtools/journal", "OUTSIDE"),
        ("etc/gfwtools", "../../outside"),
        ("var/lib/gfwtools/state.json", "OUTSIDE/file"),
        ("etc/dnsmasq.d/gfwlist.conf", "OUTSIDE/file"),
    ],
)
def test_a_link_that_leads_out_of_the_root_is_not_followed(root: Path, outside: Path, link: str, target: str) -> None:
    (outside / "file").write_text("precious\n")
    (root / link).parent.mkdir(parents=True, exist_ok=True)
    (root / link).symlink_to(target.replace("OUTSIDE", str(outside)))
    before = tree_of(outside)
    gfwtools(root, "update", "--source", LIST, code=None)
    gfwtools(root, "deny", "mine.example", code=None)
    assert tree_of(outside) == before


def test_a_lock_that_is_a_link_is_not_followed(root: Path, outside: Path) -> None:
    (root / "var/lib/gfwtools").mkdir(parents=True)
    (root / "var/lib/gfwtools/lock").symlink_to(outside / "lock")
    assert "Too many levels of symbolic links" in gfwtools(root, "update", "--source", LIST, code=1).stderr
    assert tree_of(outside) == {}


def test_a_link_of_an_image_is_followed_below_the_root(root: Path) -> None:
    """As chroot would: `/srv/dnsmasq.d` of that system, which this host need not have."""
    (root / "srv/dnsmasq.d").mkdir(parents=True)
    (root / "srv/state").mkdir()
    (root / "etc").mkdir()
    (root / "var/lib").mkdir(parents=True)
    (root / "etc/dnsmasq.d").symlink_to("/srv/dnsmasq.d")
    (root / "var/lib/gfwtools").symlink_to("../../../../srv/state")
    gfwtools(root, "update", "--source", LIST)
    assert "gfwlist" in (root / "srv/dnsmasq.d/gfwlist.conf").read_text()
    assert (root / "srv/state/state.json").exists()
    assert "nothing new" in gfwtools(root, "update", "--source", LIST).stdout


def test_a_list_or_a_configuration_is_read_below_the_root(root: Path, outside: Path) -> None:
    (outside / "deny.txt").write_text("theirs.example\n")
    (outside / "config.toml").write_text('[policy.gfwlist]\ninterface = "theirs"\n')
    (root / "etc/gfwtools").mkdir(parents=True)
    for name in ("deny.txt", "config.toml"):
        (root / "etc/gfwtools" / name).symlink_to(outside / name)
    assert load(Paths(root).config, root).policies[0].interface == "wg0"
    gfwtools(root, "update", "--source", LIST)
    assert "theirs.example" not in (root / "var/lib/gfwtools/gfwlist.domains").read_text()


def test_links_in_a_circle_are_an_error_and_not_the_hosts_folder(root: Path) -> None:
    (root / "etc").symlink_to("/etc")
    with pytest.raises(ConfigError, match="links lead in a circle"):
        Paths(root).at("/etc/dnsmasq.d")


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/a/file", "a/file"),
        ("/../../a", "a"),
        ("/up/x", "x"),
        ("/abs/file", "a/file"),
        ("/missing/../x", "missing/x"),
        ("/a/file/x", None),
    ],
)
def test_a_path_leads_where_chroot_would_have_it(root: Path, path: str, leads_to: str | None) -> None:
    (root / "a").mkdir()
    (root / "a/file").write_text("")
    (root / "up").symlink_to("../../..")
    (root / "abs").symlink_to("/up/a")
    if leads_to is None:
        with pytest.raises(NotADirectoryError):
            beneath(root, path)
    else:
        assert beneath(root, path) == root / leads_to


def test_a_link_by_the_hosts_name_of_a_place_below_the_root_does_not_lead_out(root: Path) -> None:
    (root / "a").mkdir()
    (root / "link").symlink_to(root / "a")
    assert beneath(root, "/link/x") == root / "a/x"

"""The host's dnsmasq is there at boot after bootstrap, and as it was before after teardown."""

from pathlib import Path
from typing import Any

import pytest
from journals import apply
from recorder import Recorder
from tools import needs

from gfwtools.config.model import Config, Dns
from gfwtools.dnsmasq import service
from gfwtools.plumbing.apply import undo_kept
from gfwtools.setup.preflight import preflight
from gfwtools.system.commands import System
from gfwtools.system.init import Init

LIVE: dict[tuple[str, ...], str] = {("systemctl", "show", "--property=Version"): "Version=252\n"}
INSTALLED = {("systemctl", "list-unit-files", "--no-legend", "dnsmasq.service"): "dnsmasq.service disabled enabled\n"}
ENABLED = {("systemctl", "is-enabled", "dnsmasq.service"): "enabled\n"}
RUNNING = {("systemctl", "is-active", "dnsmasq.service"): "active\n"}
UNIT = "[Service]\nExecStart=/usr/sbin/dnsmasq -k\n[Install]\nWantedBy=multi-user.target\n"


def commands(steps: list[Any]) -> list[str]:
    return [str(command) for step in steps for command in step.do]


def systemd(tmp_path: Path, answers: dict[tuple[str, ...], str], **dns: Any) -> list[str]:
    """What bootstrap runs on a systemd host; nothing is run here."""
    config = Config(dns=Dns(**dns))
    return commands(service.steps(config, "systemd", service.observe(config, "systemd", Recorder(LIVE | answers))))


def test_a_dnsmasq_that_is_installed_only_is_enabled_and_started(tmp_path: Path) -> None:
    assert systemd(tmp_path, INSTALLED) == [
        "systemctl enable dnsmasq.service",
        "systemctl start dnsmasq.service",
    ]


def test_a_dnsmasq_that_is_enabled_and_runs_is_left_as_it_is(tmp_path: Path) -> None:
    assert systemd(tmp_path, INSTALLED | ENABLED | RUNNING) == []


def test_a_dnsmasq_that_died_after_bootstrap_is_started_and_is_still_the_hosts(tmp_path: Path) -> None:
    config = Config()
    there = service.observe(config, "systemd", Recorder(LIVE | INSTALLED | ENABLED))
    assert commands(service.steps(config, "systemd", there, is_first=False)) == ["systemctl start dnsmasq.service"]


@pytest.mark.parametrize("manager", ["openrc", "command", "none"])
def test_a_dnsmasq_that_systemd_does_not_manage_is_not_enabled(tmp_path: Path, manager: str) -> None:
    assert systemd(tmp_path, INSTALLED, manager=manager, restart=("true",)) == []


def test_its_inverse_is_kept_for_teardown_where_it_is_the_first_bootstrap(tmp_path: Path) -> None:
    config = Config()
    there = service.observe(config, "systemd", Recorder(LIVE | INSTALLED))
    assert [(step.keep, *map(str, step.undo)) for step in service.steps(config, "systemd", there)] == [
        (service.ENABLED, "systemctl disable dnsmasq.service"),
        (service.STARTED, "systemctl stop dnsmasq.service"),
    ]
    assert not any(step.keep for step in service.steps(config, "systemd", there, is_first=False))


def test_only_what_was_our_doing_is_undone_the_last_change_first(tmp_path: Path) -> None:
    config, runner = Config(root=tmp_path), Recorder(LIVE | INSTALLED)
    undo_kept(config.paths, runner, service.STARTED, service.ENABLED)
    assert runner.changes == []
    apply(service.steps(Config(), "systemd", service.observe(Config(), "systemd", runner)), runner, config.paths)
    runner.changes.clear()
    undo_kept(config.paths, runner, service.STARTED, service.ENABLED)
    undo_kept(config.paths, runner, service.STARTED, service.ENABLED)
    assert list(map(str, runner.changes)) == ["systemctl stop dnsmasq.service", "systemctl disable dnsmasq.service"]


@pytest.mark.parametrize("init", ["systemd", "openrc"])
def test_below_a_root_it_is_enabled_and_disabled_again_with_the_real_tools(tmp_path: Path, init: Init) -> None:
    if init == "systemd":
        needs("systemctl")
    for folder in ("etc/runlevels/default", "var/lib/gfwtools"):
        (tmp_path / folder).mkdir(parents=True)
    script = tmp_path / ("etc/init.d/dnsmasq" if init == "openrc" else "etc/systemd/system/dnsmasq.service")
    script.parent.mkdir(parents=True)
    script.write_text(UNIT)
    before = sorted(tmp_path.rglob("*"))
    config, system = Config(root=tmp_path), System()

    apply(service.steps(config, init, service.observe(config, init, system)), system, config.paths)
    there = service.observe(config, init, system)
    assert there.enabled
    assert service.steps(config, init, there) == [], "a second run finds nothing to do"
    undo_kept(config.paths, system, service.STARTED, service.ENABLED)
    assert [path for path in sorted(tmp_path.rglob("*")) if not path.name.endswith(".wants")] == before


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (
            "",
            "dnsmasq.service: there is no such service, and dnsmasq has to be there at boot; install the package "
            "dnsmasq (Debian's dnsmasq-base has none), or set dns.manager in config.toml",
        ),
        (
            "dnsmasq.service masked enabled\n",
            "dnsmasq.service is masked: it cannot be started; run: systemctl unmask dnsmasq.service",
        ),
    ],
)
def test_a_dnsmasq_that_no_boot_can_start_is_told_before_anything_changes(
    monkeypatch: pytest.MonkeyPatch, listed: str, expected: str
) -> None:
    monkeypatch.setattr("gfwtools.setup.preflight.detect_init", lambda root: "systemd")
    version = {("dnsmasq", "--version"): "Dnsmasq version 2.90\nCompile time options: ipset nftset\n"}
    answers = LIVE | version | dict.fromkeys(INSTALLED, listed)
    problems = preflight(Config(), Recorder(answers, tools=frozenset({"dnsmasq"})), is_root=True)
    assert [str(problem) for problem in problems if "dnsmasq.service" in problem.what] == [expected]

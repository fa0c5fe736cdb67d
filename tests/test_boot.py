"""What brings the plumbing back at boot: units, scripts, the cron job, and enabling them."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from journals import apply, put
from paths import REPO
from recorder import Recorder
from tools import needs

from gfwtools.config.load import loads
from gfwtools.config.model import Config
from gfwtools.errors import HostError
from gfwtools.plumbing.apply import undo_kept
from gfwtools.setup import boot, files, nftables_service
from gfwtools.setup.boot import BootState
from gfwtools.setup.files import FileEdit
from gfwtools.setup.nftables_service import DROP_IN
from gfwtools.system.commands import System
from gfwtools.system.init import Init, detect_init, is_stopping

PROGRAM = "/opt/gfwtools/bin/python3 -I /usr/local/bin/gfwtools"
SPLIT = '[dns]\nlayout = "split"\n'
TWO = SPLIT + '[policy.gfwlist]\n[policy.work]\ninterface = "wg-work"\nsources = ["https://example.net/list"]\n'
SHELL = [
    *(REPO / "examples").glob("*.st*"),
    *(REPO / "scripts/cron").glob("*.st*"),
    REPO / "scripts/venv",
    REPO / "scripts/test-packages",
    REPO / ".ci/run",
]
LIVE: dict[tuple[str, ...], str] = {("systemctl", "show", "--property=Version"): "Version=252\n"}
#: As Debian ships it, without its helper.
DNSMASQ = """\
[Unit]
Requires=network.target
Wants=nss-lookup.target
Before=nss-lookup.target
After=network.target
[Service]
Type=forking
PIDFile=/run/dnsmasq/dnsmasq.pid
ExecStart=/bin/true
"""
#: As wireguard-tools ships it.
WG_QUICK = """\
[Unit]
After=network-online.target nss-lookup.target
Wants=network-online.target nss-lookup.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/true
"""


def run(*argv: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False, **options)


def by_path(files: list[FileEdit]) -> dict[str, str]:
    return {file.path: file.data.decode() for file in files}


def every_file(text: str = TWO) -> dict[str, str]:
    config = loads(text)
    inits: tuple[Init, ...] = ("systemd", "openrc", "none")
    return {path: data for init in inits for path, data in by_path(boot.boot_files(config, init, PROGRAM)).items()}


# ---------------------------------------------------------------- files


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """A folder with the units, an executable that exists in the place of ours, and those that they are ordered by."""
    for file in boot.boot_files(loads(TWO), "systemd", "/bin/true"):
        path = tmp_path / Path(file.path).name
        # dnsmasq is not there for those who only run the unit tests.
        path.write_text(
            re.sub(r"^(ExecStart(?:Pre)?=-?)(?:dnsmasq|ipset)", r"\1/bin/true", file.data.decode(), flags=re.MULTILINE)
        )
    (tmp_path / "dnsmasq.service").write_text(DNSMASQ)
    (tmp_path / "wg-quick@.service").write_text(WG_QUICK)
    for instance in ("gfwtools-dns@gfwlist", "gfwtools-link@wg0", r"gfwtools-link@wg\x2dwork", "wg-quick@wg0"):
        shutil.copy(tmp_path / f"{instance.partition('@')[0]}@.service", tmp_path / f"{instance}.service")
    return tmp_path


def verify(units: Path) -> str:
    """What systemd finds wrong with the units when all of them are started together."""
    needs("systemd-analyze")
    started = [path for path in sorted(units.iterdir()) if "@." not in path.name]
    done = run(
        "systemd-analyze", "verify", "--man=no", *started, env={"SYSTEMD_UNIT_PATH": f"{units}:", "PATH": "/bin"}
    )
    return done.stderr + (f"exit code {done.returncode}" if done.returncode else "")


def test_the_units_pass_systemd_analyze_verify_together_with_dnsmasq_and_wg_quick(units: Path) -> None:
    assert verify(units) == ""


def test_waiting_for_wg_quick_before_dnsmasq_would_be_a_circle(units: Path) -> None:
    """Why the routes have a unit of their own."""
    unit = units / "gfwtools.service"
    unit.write_text(unit.read_text().replace("Before=dnsmasq", "After=wg-quick@wg0.service\nBefore=dnsmasq"))
    assert "ordering cycle" in verify(units)


#: ifupdown's unit, and that of cloud-init, which wants the network before the rest of the system starts.
NETWORKING = "[Unit]\nDefaultDependencies=no\nAfter=network-pre.target\nBefore=network.target\n"
CLOUD_INIT = "[Unit]\nDefaultDependencies=no\nAfter=networking.service\nBefore=sysinit.target network-online.target\n"
ONESHOT = "[Service]\nType=oneshot\nExecStart=/bin/true\n"


def with_early_network(units: Path) -> Path:
    (units / "networking.service").write_text(NETWORKING + ONESHOT)
    (units / "cloud-init.service").write_text(CLOUD_INIT + ONESHOT)
    return units


def test_the_plumbing_comes_before_the_network_also_where_that_starts_early(units: Path) -> None:
    unit = every_file()["/etc/systemd/system/gfwtools.service"]
    assert {"Before=network-pre.target shutdown.target", "Wants=network-pre.target"} <= set(unit.splitlines())
    assert verify(with_early_network(units)) == ""


def test_with_usual_dependencies_that_would_be_a_circle(units: Path) -> None:
    """Why the unit has DefaultDependencies=no."""
    unit = with_early_network(units) / "gfwtools.service"
    unit.write_text(unit.read_text().replace("DefaultDependencies=no\n", ""))
    assert "ordering cycle" in verify(units)


@pytest.mark.parametrize(
    ("unit", "limit"),
    [
        ("gfwtools", 2.9),
        ("gfwtools-update", 2.9),
        ("gfwtools-dns@gfwlist", 2.9),
        ("gfwtools-link@wg0", 2.5),
        ("gfwtools-again", 2.5),
        ("gfwtools-sets", 2.5),
        ("gfwtools-resolvers", 2.5),
    ],
)
def test_the_units_are_sandboxed(units: Path, unit: str, limit: float) -> None:
    needs("systemd-analyze")
    done = run(
        "systemd-analyze", "security", "--offline=yes", f"--threshold={limit * 10:.0f}", units / f"{unit}.service"
    )
    assert done.returncode == 0, done.stdout.splitlines()[-1]


def test_the_calendar_of_the_timer_is_four_times_a_day() -> None:
    needs("systemd-analyze")
    timer = every_file()["/etc/systemd/system/gfwtools-update.timer"]
    calendar = re.search(r"^OnCalendar=(.*)$", timer, re.MULTILINE)
    assert calendar
    done = run("systemd-analyze", "calendar", calendar[1])
    assert "Normalized form: *-*-* 00/6:00:00" in done.stdout


def test_no_placeholder_is_left() -> None:
    assert {
        path: re.findall(r"@[A-Z_]+@", text) for path, text in every_file().items() if re.search("@[A-Z_]+@", text)
    } == {}


def test_the_routes_follow_the_events_of_their_interface_alone(tmp_path: Path) -> None:
    """The shell's own line, with programs in place of ip and systemctl."""
    unit = every_file()["/etc/systemd/system/gfwtools-link@.service"]
    script = re.search(r"^ExecStart=/bin/sh -c '(.*?)'$", unit, re.MULTILINE | re.DOTALL)
    assert script
    events = (
        "9: wg0: <POINTOPOINT,NOARP,UP,LOWER_UP> mtu 1420 state UNKNOWN",
        "9: wg0    inet 10.8.0.2/32 scope global wg0",
        "9: wg0@if3: <UP> mtu 1420",
        "2: eth0: <UP> mtu 1500",
        "8: wg01: <UP> mtu 1420",
        "Deleted 9: wg0    inet 10.8.0.2/32 scope global wg0",
    )
    log = tmp_path / "log"
    for name, body in (("ip", "".join(f"echo '{event}'\n" for event in events)), ("systemctl", f'echo "$@" >>{log}\n')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}")
        (tmp_path / name).chmod(0o755)
    words = script[1].replace("\\\n", "").replace("$$", "$").replace("%I", "wg0")
    done = run("/bin/sh", "-c", words, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert (done.returncode, done.stderr) == (0, "")
    assert log.read_text() == "--no-block try-reload-or-restart gfwtools.service\n" * 4, "once at the start"


@pytest.mark.parametrize(("state", "stopping"), [("stopping\n", True), ("running\n", False), ("degraded\n", False)])
def test_a_shutdown_is_seen_by_the_state_of_systemd(state: str, stopping: bool) -> None:
    asked = ("systemctl", "show", "--property=SystemState", "--value")
    assert is_stopping(Config(), Recorder({asked: state})) is stopping


@pytest.mark.parametrize("service", ["nftables", "netfilter-persistent", "iptables", "ufw", "firewalld"])
def test_each_start_of_a_firewall_pulls_in_what_brings_ours_back_after_it(service: str) -> None:
    unit = every_file()["/etc/systemd/system/gfwtools-again.service"]
    for key in ("After", "WantedBy"):
        assert f"{service}.service" in " ".join(re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)).split()


def test_saved_rules_of_iptables_find_the_sets_of_each_policy() -> None:
    unit = every_file()["/etc/systemd/system/gfwtools-sets.service"].splitlines()
    assert [line for line in unit if line.startswith("ExecStart")] == [
        f"ExecStart=-ipset restore -exist -file /var/lib/gfwtools/{policy}.ipset" for policy in ("gfwlist", "work")
    ]
    assert "Before=netfilter-persistent.service iptables.service ip6tables.service shutdown.target" in unit


def test_a_restart_of_networkd_or_of_wg_quick_brings_the_routes_back() -> None:
    unit = every_file()["/etc/systemd/system/gfwtools-again.service"]
    wanted_by = " ".join(re.findall(r"^WantedBy=(.*)$", unit, re.MULTILINE)).split()
    assert {"systemd-networkd.service", "wg-quick@wg0.service", "wg-quick@wg-work.service"} <= set(wanted_by)


def test_a_folder_of_dnsmasq_outside_of_etc_may_be_written() -> None:
    unit = every_file('[dns]\nconf_dir = "/opt/dns 100%/conf.d"\n')["/etc/systemd/system/gfwtools-update.service"]
    assert 'ReadWritePaths=/etc /run "-/opt/dns 100%%/conf.d"\n' in unit


def test_the_second_dnsmasq_has_a_unit_in_the_split_layout_only() -> None:
    assert "/etc/systemd/system/gfwtools-dns@.service" in every_file(SPLIT)
    assert not [path for path in every_file("") if "dns" in path]


@pytest.mark.parametrize("init", ["systemd", "openrc", "none"])
def test_the_places_are_those_of_all_files(init: Init) -> None:
    texts = (TWO, SPLIT, "")
    wrote = {
        file.path
        for text in texts
        for file in boot.boot_files(loads(text), init, PROGRAM, networkd=True, nftables=True)
    }
    assert wrote <= set(boot.places())


def test_networkd_leaves_our_rules_and_routes_where_it_is_used() -> None:
    path = "/etc/systemd/networkd.conf.d/50-gfwtools.conf"
    text = by_path(boot.boot_files(Config(), "systemd", PROGRAM, networkd=True))[path]
    assert "\nManageForeignRoutingPolicyRules=no\nManageForeignRoutes=no\n" in text
    assert path not in by_path(boot.boot_files(Config(), "systemd", PROGRAM))


@pytest.mark.parametrize(("state", "expected"), [("enabled\n", True), (None, False)])
def test_networkd_counts_where_it_is_enabled(state: str | None, expected: bool) -> None:
    asked = ("systemctl", "is-enabled", "systemd-networkd.service")
    runner = Recorder({asked: state} if state else {}, frozenset({"systemctl"}))
    assert boot.has_networkd(Config(), runner) is expected


def test_the_drop_in_of_nftables_is_written_only_where_it_fits() -> None:
    assert DROP_IN in by_path(boot.boot_files(Config(), "systemd", PROGRAM, nftables=True))
    assert DROP_IN not in by_path(boot.boot_files(Config(), "systemd", PROGRAM))


#: As `systemctl cat` shows Debian's unit.
NFTABLES = """\
# /usr/lib/systemd/system/nftables.service
[Service]
Type=oneshot
ExecStart=/usr/sbin/nft -f /etc/nftables.conf
ExecReload=/usr/sbin/nft -f /etc/nftables.conf
ExecStop=/usr/sbin/nft flush ruleset
"""
OVERRIDE = "\n# /etc/systemd/system/nftables.service.d/override.conf\n[Service]\n"


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        pytest.param(NFTABLES, True, id="debian"),
        pytest.param(f"{NFTABLES}{OVERRIDE}Nice=1\n", True, id="an-override-without-commands"),
        pytest.param(f"{NFTABLES}{OVERRIDE}ExecStartPost=/bin/true\n", False, id="a-command-of-the-owner"),
        pytest.param(NFTABLES.replace("/etc/nftables.conf", "/etc/other.conf"), False, id="another-file"),
        pytest.param("# /dev/null\n", False, id="masked"),
        pytest.param(None, False, id="none"),
    ],
)
def test_the_drop_in_fits_debians_own_commands_of_nftables(unit: str | None, expected: bool) -> None:
    runner = Recorder({("systemctl", "cat", "nftables.service"): unit} if unit else {})
    assert nftables_service.flushes(Config(), runner) is expected


def test_the_drop_in_of_nftables_still_fits_once_it_is_there() -> None:
    ours = by_path(boot.boot_files(Config(), "systemd", PROGRAM, nftables=True))[DROP_IN]
    runner = Recorder({("systemctl", "cat", "nftables.service"): f"{NFTABLES}\n# {DROP_IN}\n{ours}"})
    assert nftables_service.flushes(Config(), runner)


def test_teardown_removes_the_drop_in_of_nftables_and_its_folder(tmp_path: Path) -> None:
    config = loads("", root=tmp_path)
    written = tmp_path / DROP_IN.removeprefix("/")
    put(boot.boot_files(config, "systemd", PROGRAM, nftables=True), config.paths)
    assert written.exists()
    assert files.put_back(config.paths) == {}
    assert not written.parent.exists()


def test_cron_is_for_hosts_without_the_timer() -> None:
    config = Config()
    assert "/etc/cron.d/gfwtools" not in by_path(boot.boot_files(config, "systemd", PROGRAM))
    assert list(by_path(boot.boot_files(config, "none", PROGRAM))) == ["/etc/cron.d/gfwtools"]
    assert boot.boot_files(config, "none", PROGRAM, cron=False) == []


@pytest.mark.parametrize(
    "program", ["gfwtools", "/opt/my tools/gfwtools", "/opt/100%/gfwtools", "/opt/$x/gfwtools", ""]
)
def test_a_program_that_a_unit_or_cron_would_read_otherwise_is_refused(program: str) -> None:
    with pytest.raises(HostError, match="absolute path"):
        boot.boot_files(Config(), "systemd", program)


@pytest.mark.parametrize(
    ("path", "copy"),
    [
        ("/etc/cron.d/gfwtools", "gfwtools"),
        ("/etc/local.d/01-gfwtools.start", "01-gfwtools.start"),
        ("/etc/local.d/01-gfwtools.stop", "01-gfwtools.stop"),
    ],
)
def test_scripts_cron_is_what_bootstrap_writes(path: str, copy: str) -> None:
    assert (REPO / "scripts/cron" / copy).read_text() == every_file()[path]


# ---------------------------------------------------------------- shell and cron


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_shell_passes_shellcheck(script: Path) -> None:
    needs("shellcheck")
    done = run("shellcheck", script)
    assert done.returncode == 0, done.stdout


def test_the_script_for_openrc_passes_shellcheck(tmp_path: Path) -> None:
    """SC2034, unused variables: openrc-run is who uses them."""
    needs("shellcheck")
    script = tmp_path / "gfwtools-dns"
    script.write_text(every_file()["/etc/init.d/gfwtools-dns"])
    assert script.read_text().startswith("#!/sbin/openrc-run\n")
    done = run("shellcheck", "--shell=sh", "--exclude=SC2034", script)
    assert done.returncode == 0, done.stdout


def test_scripts_can_be_executed() -> None:
    files = boot.boot_files(loads(SPLIT), "openrc", PROGRAM)
    assert {file.path for file in files if file.mode == 0o755} == {
        "/etc/local.d/01-gfwtools.start",
        "/etc/local.d/01-gfwtools.stop",
        "/etc/init.d/gfwtools-dns",
    }


def cron_job() -> str:
    """The job's command, after five fields of time and the user (crontab(5))."""
    lines = [line for line in every_file()["/etc/cron.d/gfwtools"].splitlines() if not line.startswith("#")]
    *settings, room, _ = lines
    assert [line for line in settings if re.fullmatch(r"[A-Z]+=\S+", line)] == settings
    assert re.fullmatch(r"\*/5 \* \* \* \* root .* up --unless-down >/dev/null 2>&1", room)
    minute, hour, day, month, weekday, user, command = lines[-1].split(maxsplit=6)
    assert (minute, hour, day, month, weekday, user) == ("0", "*/6", "*", "*", "*", "root")
    return command


def test_the_cron_line_has_no_percent_sign() -> None:
    """An unescaped one ends the command (crontab(5))."""
    assert "%" not in cron_job()


def test_the_cron_job_waits_for_its_own_part_of_the_hour_and_runs_update(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("sleep", "gfwtools"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >>{log}\n')
        (tmp_path / name).chmod(0o755)
    command = cron_job().replace(PROGRAM, "gfwtools").replace("/etc/cron.d/gfwtools", str(tmp_path))
    for _ in range(2):
        done = run("/bin/sh", "-c", command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"})
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    first, updated, second, _ = log.read_text().splitlines()
    assert updated == "gfwtools -q update --reload"
    assert first == second, "a host keeps its own minute"
    assert 0 <= int(first.removeprefix("sleep ")) < 3600


def test_a_cron_job_that_waits_while_teardown_runs_does_nothing_after_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for name in ("sleep", "gfwtools"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} >>{log}\n")
        (tmp_path / name).chmod(0o755)
    command = cron_job().replace(PROGRAM, "gfwtools").replace("/etc/cron.d/gfwtools", str(tmp_path / "gone"))
    assert run("/bin/sh", "-c", command, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}).returncode == 0
    assert log.read_text() == "sleep\n"


# ---------------------------------------------------------------- which init system


def test_the_init_system_is_the_one_that_runs(tmp_path: Path) -> None:
    assert detect_init(tmp_path) == "none"
    (tmp_path / "run/openrc").mkdir(parents=True)
    assert detect_init(tmp_path) == "openrc"
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert detect_init(tmp_path) == "systemd"


# ---------------------------------------------------------------- enabling


def answers_of(names: list[str]) -> dict[tuple[str, ...], str]:
    """systemctl's answers where ``names`` are enabled and running."""
    answers = dict(LIVE)
    for name in names:
        answers["systemctl", "is-enabled", name] = "enabled\n"
        answers["systemctl", "is-active", name] = "active\n"
    return answers


def commands(config: Config, init: Init, there: BootState) -> list[str]:
    return [str(command) for step in boot.boot_steps(config, init, there) for command in step.do]


def test_systemd_enables_the_plumbing_last() -> None:
    config = loads(TWO)
    there = boot.observe(config, "systemd", Recorder(LIVE))
    assert commands(config, "systemd", there) == [
        "systemctl daemon-reload",
        "systemctl enable --now gfwtools-dns@gfwlist.service",
        "systemctl enable --now gfwtools-dns@work.service",
        "systemctl enable --now gfwtools-link@wg0.service",
        r"systemctl enable --now 'gfwtools-link@wg\x2dwork.service'",
        "systemctl enable gfwtools-sets.service",
        "systemctl enable gfwtools-again.service",
        "systemctl enable --now gfwtools-resolvers.path",
        "systemctl enable --now gfwtools-update.timer",
        "systemctl enable --now gfwtools-room.timer",
        "systemctl enable --now gfwtools.service",
    ]


def test_a_second_run_enables_nothing() -> None:
    config = loads(TWO)
    names = [service.name for service in boot.services(config, "systemd")]
    there = boot.observe(config, "systemd", Recorder(answers_of(names)))
    assert boot.boot_steps(config, "systemd", there) == []


def test_a_service_that_is_enabled_and_does_not_run_is_started() -> None:
    config = Config()
    names = [service.name for service in boot.services(config, "systemd")]
    answers = answers_of(names)
    del answers["systemctl", "is-active", "gfwtools.service"]
    there = boot.observe(config, "systemd", Recorder(answers))
    assert commands(config, "systemd", there) == ["systemctl daemon-reload", "systemctl enable --now gfwtools.service"]


def test_units_that_changed_on_the_disk_are_read_again() -> None:
    config = Config()
    names = [service.name for service in boot.services(config, "systemd")]
    asked = ("systemctl", "show", "--property=NeedDaemonReload", "--value", *names, "nftables.service")
    there = boot.observe(config, "systemd", Recorder(answers_of(names) | {asked: "no\n\nyes\n\nno\n"}))
    assert commands(config, "systemd", there) == ["systemctl daemon-reload"]


@pytest.mark.parametrize("init", ["systemd", "openrc"])
def test_the_undo_of_a_step_disables_what_it_enabled(init: Init) -> None:
    pairs = {
        "enable": "disable",
        "add": "del",
        "start": "stop",
        "ln": "rm",
        "touch": "rm",
        "daemon-reload": "daemon-reload",
    }

    def verb(words: tuple[str, ...]) -> str:
        return next(word for word in words if word in {*pairs, *pairs.values()})

    for step in boot.boot_steps(loads(TWO), init, BootState(live=True)):
        assert [pairs[verb(command.argv)] for command in reversed(step.do)] == [verb(c.argv) for c in step.undo]


def test_leaving_stops_the_plumbing_first_and_the_second_dnsmasq_last() -> None:
    config = loads(SPLIT)
    names = frozenset(service.name for service in boot.services(config, "systemd"))
    there = BootState(
        enabled=names,
        running=frozenset(
            {
                "gfwtools.service",
                "gfwtools-room.timer",
                "gfwtools-update.timer",
                "gfwtools-resolvers.path",
                "gfwtools-dns@gfwlist.service",
            }
        ),
        live=True,
    )
    assert [str(command) for step in boot.leave_steps(config, "systemd", there) for command in step.do] == [
        "systemctl disable --now gfwtools.service",
        "systemctl disable --now gfwtools-room.timer",
        "systemctl disable --now gfwtools-update.timer",
        "systemctl disable --now gfwtools-resolvers.path",
        "systemctl disable gfwtools-again.service",
        "systemctl disable gfwtools-sets.service",
        "systemctl disable gfwtools-link@wg0.service",
        "systemctl disable --now gfwtools-dns@gfwlist.service",
    ]
    assert [str(command) for step in boot.forget_steps("systemd", there) for command in step.do] == [
        "systemctl daemon-reload"
    ]


def write(files: list[FileEdit], root: Path) -> None:
    for file in files:
        path = root / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.data)


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def enabled_below(root: Path, init: Init, text: str) -> set[str]:
    """Enable what ``text`` wants below ``root``, with the real tools; what is there afterwards."""
    config = loads(text, root=root)
    write(boot.boot_files(config, init, PROGRAM), root)
    apply(boot.boot_steps(config, init, boot.observe(config, init, System())), System(), config.paths)
    there = boot.observe(config, init, System())
    assert boot.boot_steps(config, init, there) == [], "a second run finds nothing to do"
    return {name for name in there.enabled | there.linked if name.startswith("gfwtools-dns")}


@pytest.mark.parametrize("init", ["systemd", "openrc"])
def test_below_a_root_the_layouts_are_changed_and_all_is_left_with_the_real_tools(tmp_path: Path, init: Init) -> None:
    if init == "systemd":
        needs("systemctl")
    for folder in ("etc/runlevels/default", "etc/systemd/system", "var/lib/gfwtools"):
        (tmp_path / folder).mkdir(parents=True)
    dot = "@{}.service" if init == "systemd" else ".{}"
    write(boot.boot_files(loads(TWO, root=tmp_path), init, PROGRAM), tmp_path)
    before = tree(tmp_path)
    assert enabled_below(tmp_path, init, "") == set()
    assert enabled_below(tmp_path, init, TWO) == {f"gfwtools-dns{dot}".format(name) for name in ("gfwlist", "work")}
    assert enabled_below(tmp_path, init, SPLIT) == {f"gfwtools-dns{dot}".format("gfwlist")}
    config = loads(SPLIT, root=tmp_path)
    apply(boot.leave_steps(config, init, boot.observe(config, init, System())), System(), config.paths)
    undo_kept(config.paths, System(), boot.LOCAL_ENABLED)
    assert tree(tmp_path) == before


def test_local_stays_in_the_runlevel_of_a_host_that_had_it(tmp_path: Path) -> None:
    (tmp_path / "etc/runlevels/default").mkdir(parents=True)
    (tmp_path / "etc/runlevels/default/local").symlink_to("/etc/init.d/local")
    config = Config(root=tmp_path)
    there = boot.observe(config, "openrc", Recorder())
    assert boot.boot_steps(config, "openrc", there) == []
    assert boot.leave_steps(config, "openrc", there) == []

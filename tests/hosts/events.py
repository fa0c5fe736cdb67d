"""What happens to a host, in order. Each event returns what is wrong after it, a line each."""

import difflib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from judge import client_faults
from kinds import Host
from machine import NotUp
from subject import Subject
from surroundings import LEASES, LIST

__all__ = ["Event", "events_of", "recover"]

_BOOTSTRAP = "gfwtools", "bootstrap", "--interface", "wg0", "--gateway", "--yes"
_UPDATE = "gfwtools", "-q", "update", "--reload"
#: A command is killed within these seconds.
_CUT_WITHIN = 8.0
_LONGER_LIST = LIST + "".join(f"||new{number}.blocked.example.org\n" for number in range(50))


@dataclass(frozen=True)
class Event:
    name: str
    run: Callable[[Subject], list[str]]
    #: Whether gfwtools is to be set up after it.
    recovers: bool = False


def events_of(host: Host) -> Iterator[Event]:
    """The events of a host, in the order in which they happen."""
    yield Event("boot", _boot)
    yield Event("power cut in bootstrap", _cut_in_bootstrap)
    yield Event("bootstrap", _bootstrap)
    yield Event("reboot", _reboot, True)
    yield Event("power cut in an update", _cut_in_an_update, True)
    for service in host.services:
        yield Event(f"restart {service.removesuffix('.service')}", _restart(service), True)
    yield Event("another lease", lambda subject: _lease(subject, 1), True)
    yield Event("the first lease again", lambda subject: _lease(subject, 0), True)
    yield Event("apt-get install --reinstall dnsmasq", _reinstall, True)
    yield Event("teardown", _teardown)
    yield Event("reboot after teardown", _reboot_after_teardown)


# ------------------------------------------------------------------------------------------------- before gfwtools


def _boot(subject: Subject) -> list[str]:
    subject.lost = "it did not boot"
    subject.machine.boot()
    subject.machine.wait_until_up()
    subject.judge.learn_who_is_served()
    if faults := subject.judge.free_faults():
        return faults  # the host is ill by itself
    subject.before = subject.snapshot()
    subject.lost = ""
    return []


def _cut_in_bootstrap(subject: Subject) -> list[str]:
    moment = _cut_in(subject, *_BOOTSTRAP)
    subject.machine.wait_until_up()
    return _with(moment, subject.judge.free_faults())


def _bootstrap(subject: Subject) -> list[str]:
    done = subject.machine.run(*_BOOTSTRAP, code=None)
    if done.returncode:
        subject.lost = "bootstrap failed"
        return [f"bootstrap gave {done.returncode}: {(done.stdout + done.stderr).strip()[-2000:]}"]
    subject.judge.forget_leaks()
    subject.start_client()
    return _faults(subject)


# ------------------------------------------------------------------------------------------------- while it is set up


def _reboot(subject: Subject) -> list[str]:
    subject.machine.reboot()
    subject.machine.wait_until_up()
    return [*_faults(subject), *subject.judge.noise()]


def _cut_in_an_update(subject: Subject) -> list[str]:
    subject.around.publish(_LONGER_LIST)
    moment = _cut_in(subject, *_UPDATE)
    subject.machine.wait_until_up()
    faults = _faults(subject)
    done = subject.machine.run(*_UPDATE, code=None)
    if done.returncode:
        faults.append(f"the next update gave {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")
    return _with(moment, faults)


def _restart(service: str) -> Callable[[Subject], list[str]]:
    def run(subject: Subject) -> list[str]:
        done = subject.machine.run("systemctl", "restart", service, code=None)
        failed = [f"systemctl restart {service}: {done.stderr.strip()}"] if done.returncode else []
        return [*failed, *_faults(subject)]

    return run


def _lease(subject: Subject, number: int) -> list[str]:
    network, _ = subject.host.parts
    subject.around.lease(LEASES[number], others_answer=not network.follows)
    for command in (command for part in subject.host.parts for command in part.renew):
        subject.machine.run(*command)
    return [*subject.judge.lease_faults(LEASES[number]), *_faults(subject)]


def _reinstall(subject: Subject) -> list[str]:
    apt = ("apt-get", "-qq", "-y", "install", "--reinstall", "dnsmasq")
    done = subject.machine.run("env", "DEBIAN_FRONTEND=noninteractive", *apt, code=None)
    failed = [f"apt-get gave {done.returncode}: {done.stderr.strip()[-500:]}"] if done.returncode else []
    return [*failed, *_faults(subject)]


def _faults(subject: Subject) -> list[str]:
    faults = subject.judge.faults()
    return [*faults, *client_faults(subject.client_lines())]


# ------------------------------------------------------------------------------------------------- without it again


def _teardown(subject: Subject) -> list[str]:
    subject.stop_client()
    done = subject.machine.run("gfwtools", "teardown", "--yes", code=None)
    if done.returncode:
        return [f"teardown gave {done.returncode}: {(done.stdout + done.stderr).strip()[-2000:]}"]
    return [*subject.judge.free_faults(), *_differences(subject)]


def _reboot_after_teardown(subject: Subject) -> list[str]:
    subject.machine.reboot()
    subject.machine.wait_until_up()
    return [*subject.judge.free_faults(), *_differences(subject)]


def _differences(subject: Subject) -> list[str]:
    lines = difflib.unified_diff(subject.before, subject.snapshot(), n=0, lineterm="")
    changed = [line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]
    return [f"not as before: {line}" for line in changed]


# ------------------------------------------------------------------------------------------------- how


def _cut_in(subject: Subject, *command: str) -> float:
    """Cut the power at a random moment of a command, or when it has ended; returns after how many seconds."""
    moment = subject.moments.uniform(0.1, _CUT_WITHIN)
    with subject.machine.running(*command) as child:
        started = time.monotonic()
        while (passed := time.monotonic() - started) < moment and child.poll() is None:
            time.sleep(0.02)
        subject.machine.cut()
    return passed


def _with(moment: float, faults: list[str]) -> list[str]:
    return [f"{fault} (cut after {moment:.2f} s)" for fault in faults]


def recover(subject: Subject) -> None:
    """After a fault: what an administrator does, so that the next event is judged by itself."""
    try:
        if not subject.lost:
            subject.machine.run(*_UPDATE, code=None)
            subject.machine.run("gfwtools", "up", code=None)
            subject.judge.forget_leaks()
    except (AssertionError, NotUp) as error:
        subject.lost = f"the host is lost: {error}"

"""What takes something back is not interrupted: a second Ctrl-C waits until the host is as it was."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from recorder import Recorder

from gfwtools.config.model import Paths
from gfwtools.errors import HostError
from gfwtools.plumbing.apply import apply
from gfwtools.storage.interrupts import NUMBERS, Held
from gfwtools.storage.journal import Entry, Journal
from gfwtools.system.commands import Command, System
from gfwtools.system.step import Step


@pytest.fixture(autouse=True)
def _as_the_command_line_has_it() -> Iterator[None]:
    before = {number: signal.signal(number, signal.default_int_handler) for number in NUMBERS}
    yield
    after = {number: signal.getsignal(number) for number in NUMBERS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert set(after.values()) == {signal.default_int_handler}, "the handlers are not as they were"


class Signals(Recorder):
    """Sends a signal to this very process when a command's word says so."""

    def change(self, command: Command) -> None:
        super().change(command)
        if command.argv[0] == "signal":
            signal.raise_signal(int(command.argv[1]))


def step(number: int, word: str = "true", back: str = "signal") -> Step:
    return Step(f"step {number}", "", (Command((word, "2")),), (Command((back, "15", str(number))),))


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_comes_through_and_the_others_wait_for_the_roll_back(number: int) -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), Held() as held:
        try:
            with held.interruptible():
                signal.raise_signal(number)
                done.append("not interrupted")
        except KeyboardInterrupt:
            for again in NUMBERS:
                signal.raise_signal(again)
            done.append("taken back")
            raise
    assert done == ["taken back"]


def test_a_signal_that_came_between_a_failure_and_its_roll_back_waits_too() -> None:
    done = []
    with pytest.raises(ValueError, match="failed"), Held() as held:
        try:
            with held.interruptible():
                raise ValueError("failed")
        except ValueError:
            signal.raise_signal(signal.SIGINT)
            done.append("taken back")
            raise
    assert done == ["taken back"]


def test_a_signal_that_has_waited_is_delivered_when_nothing_else_ends_the_work() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), Held():
        signal.raise_signal(signal.SIGTERM)
        done.append("whole")
    assert done == ["whole"]


def test_work_within_a_roll_back_is_not_interrupted_either() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), Held():
        with Held() as inner, inner.interruptible():
            signal.raise_signal(signal.SIGINT)
            done.append("inner")
        done.append("outer")
    assert done == ["inner", "outer"]


def test_a_signal_that_is_ignored_or_that_nobody_handles_is_left_alone() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with Held():
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    for number in NUMBERS:
        assert signal.getsignal(number) is not None
        signal.signal(number, signal.default_int_handler)


def test_signals_at_every_step_of_theway_back_leave_none_of_them_out() -> None:
    runner = Signals()
    with pytest.raises(KeyboardInterrupt):
        apply([step(1), step(2), step(3, "signal"), step(4)], runner)
    assert [command.argv[-1] for command in runner.changes if command.argv[1] == "15"] == ["3", "2", "1"]


def test_signals_while_a_failed_step_is_taken_back_leave_its_message_whole() -> None:
    runner = Signals(fails=lambda command: command.argv[0] == "bad")
    with pytest.raises(HostError, match="step 3: bad 2: told to fail; the host is as it was before"):
        apply([step(1), step(2), step(3, "bad")], runner)
    assert [command.argv[-1] for command in runner.changes if command.argv[1] == "15"] == ["2", "1"]


def test_a_transaction_takes_back_every_change_whatever_signals_come_meanwhile(tmp_path: Path) -> None:
    done: list[str] = []

    def stage(entry: Entry, doubtful: bool) -> None:
        signal.raise_signal(signal.SIGINT)
        done.append(entry.key)

    with (
        pytest.raises(KeyboardInterrupt),
        Journal(Paths(tmp_path)).transaction("test", {"stage": stage}) as transaction,
    ):
        transaction.record("stage", {}, "first")
        transaction.record("stage", {}, "second")
        signal.raise_signal(signal.SIGHUP)
    assert done == ["second", "first"]


def test_a_ctrl_c_at_the_terminal_does_not_reach_the_commands_that_run(tmp_path: Path) -> None:
    script = f"import os, pathlib; pathlib.Path({str(tmp_path / 'group')!r}).write_text(str(os.getpgrp()))"
    System().change(Command((sys.executable, "-c", script)))
    assert int((tmp_path / "group").read_text()) != os.getpgrp()


def test_a_frame_is_no_part_of_what_is_asked_of_a_handler() -> None:
    """One that has waited has no frame any more (signal(7) knows none; Python's handlers take None)."""
    seen: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append((number, frame)))
    with Held():
        signal.raise_signal(signal.SIGINT)
        assert seen == []
    assert seen == [(signal.SIGINT, None)]
    signal.signal(signal.SIGINT, signal.default_int_handler)

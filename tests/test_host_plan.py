"""Steps, the plan as a script, and the way back when a step fails."""

import subprocess

import pytest
from recorder import Recorder

from gfwtools.errors import HostError
from gfwtools.plumbing.apply import apply
from gfwtools.plumbing.plan import Kind, Piece, State, compare
from gfwtools.system.commands import Command, CommandError, System
from gfwtools.system.step import Step, script

STEPS = [
    Step("one", "first", (Command(("do", "1")),), (Command(("undo", "1")),)),
    Step("two", "then", (Command(("do", "2a")), Command(("do", "2b"))), (Command(("undo", "2")),), divisible=True),
    Step("three", "last", (Command(("do", "3")),), (Command(("undo", "3")),)),
]


def test_steps_are_run_in_order() -> None:
    runner = Recorder()
    apply(STEPS, runner)
    assert [command.argv[1] for command in runner.changes] == ["1", "2a", "2b", "3"]


@pytest.mark.parametrize(
    ("failing", "after"),
    [
        ("do 1", []),
        ("do 2a", ["undo 2", "undo 1"]),
        ("do 2b", ["undo 2", "undo 1"]),
        ("do 3", ["undo 2", "undo 1"]),
    ],
)
def test_a_step_that_fails_takes_back_those_before_it_the_last_first(failing: str, after: list[str]) -> None:
    runner = Recorder(fails=lambda command: str(command) == failing)
    with pytest.raises(HostError, match=f"{failing}: told to fail; the host is as it was before"):
        apply(STEPS, runner)
    done = [str(command) for command in runner.changes]
    assert done[done.index(failing) + 1 :] == after


def test_what_could_not_be_taken_back_is_told() -> None:
    runner = Recorder(fails=lambda command: str(command) in ("do 3", "undo 1"))
    with pytest.raises(HostError, match=r"^three: do 3: told to fail; could not be taken back: undo 1: told to fail$"):
        apply(STEPS, runner)


def test_an_interrupt_takes_back_everything() -> None:
    def interrupt(command: Command) -> bool:
        if str(command) == "do 3":
            raise KeyboardInterrupt
        return False

    runner = Recorder(fails=interrupt)
    with pytest.raises(KeyboardInterrupt):
        apply(STEPS, runner)
    assert [str(command) for command in runner.changes[-3:]] == ["undo 3", "undo 2", "undo 1"]


def test_the_script_does_what_the_steps_do() -> None:
    steps = [
        Step("a file", "it's here", (Command(("cat",), "line $HOME `x`\nEOF\n"),), ()),
        Step("odd words", "quoted", (Command(("printf", "%s|", "a b", "c'd", "$e")),), ()),
    ]
    done = subprocess.run(["sh"], input=script(steps), capture_output=True, text=True, check=True)
    assert done.stdout == "line $HOME `x`\nEOF\na b|c'd|$e|"


def test_the_script_says_why() -> None:
    text = script(STEPS)
    assert text.startswith("#!/bin/sh\nset -e\n")
    assert "# one: first\ndo 1\n" in text


def test_a_command_that_fails_is_named_with_its_own_message_in_one_line() -> None:
    with pytest.raises(CommandError, match=r"^ls /nowhere: ls: cannot access '/nowhere': No such file or directory$"):
        System().read("ls", "/nowhere")


def test_a_program_that_is_missing_is_named() -> None:
    with pytest.raises(CommandError, match=r"^no-such-tool x: No such file or directory$"):
        System().read("no-such-tool", "x")
    assert System().ask("no-such-tool") is None


def test_changing_commands_are_echoed_before_they_run() -> None:
    seen: list[str] = []
    System(echo=lambda command: seen.append(str(command))).change(Command(("true", "a b")))
    assert seen == ["true 'a b'"]


def test_a_busy_failure_is_tried_again_and_another_one_is_not(tmp_path_factory: pytest.TempPathFactory) -> None:
    marker = tmp_path_factory.mktemp("busy") / "marker"
    script_text = f'if [ -e {marker} ]; then exit 0; fi; touch {marker}; echo "in use" >&2; exit 1'
    System().change(Command(("sh", "-c", script_text), busy="in use"))
    with pytest.raises(CommandError, match="other"):
        System().change(Command(("sh", "-c", "echo other >&2; exit 1"), busy="in use"))


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["a", "b"], [State.OK, State.OK]),
        (None, [State.MISSING, State.MISSING]),
        ([], [State.MISSING, State.MISSING]),
        (["a"], [State.OK, State.MISSING]),
        (["b", "a"], [State.OK, State.OK, State.MISMATCH]),
        (["a", "b", "b"], [State.OK, State.OK, State.MISMATCH]),
        (["a", "c", "b"], [State.OK, State.OK, State.MISMATCH]),
    ],
)
def test_a_chain_is_compared_rule_by_rule(there: list[str] | None, expected: list[State]) -> None:
    assert [piece.state for piece in compare(Kind.CHAIN, "chain", ["a", "b"], there, str)] == expected


def test_a_rule_that_is_not_wanted_is_shown() -> None:
    assert compare(Kind.CHAIN, "chain", [], ["x"], str) == [
        Piece("chain", State.MISMATCH, "not wanted: x", Kind.CHAIN, extra=True)
    ]

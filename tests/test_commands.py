"""The runners of commands."""

from recorder import Recorder

from gfwtools.system.commands import AskedOnce, Command

QUESTION = ("ip", "rule")


def test_a_question_is_asked_once_until_something_is_changed() -> None:
    answers = {QUESTION: "before"}
    once = AskedOnce(Recorder(answers))
    said = [once.ask(*QUESTION)]
    answers[QUESTION] = "after"
    said += [once.ask(*QUESTION), once.read(*QUESTION)]
    once.change(Command(("ip", "rule", "add")))
    said += [once.ask(*QUESTION)]
    assert said == ["before", "before", "before", "after"]

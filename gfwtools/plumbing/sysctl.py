"""Kernel parameters (sysctl(8)), by their path below /proc/sys."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from gfwtools.plumbing.plan import Kind, Piece, State
from gfwtools.plumbing.record import Record
from gfwtools.plumbing.wanted import Wanted
from gfwtools.system.commands import Command, Runner
from gfwtools.system.step import Step

__all__ = ["SysctlState", "Sysctls", "observe"]


@dataclass(frozen=True, slots=True)
class SysctlState:
    """Key -> value, in the order in which they are set; ``why`` for some of the keys."""

    values: Mapping[str, str] = field(default_factory=dict)
    why: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, wanted: Wanted, before: "SysctlState") -> "SysctlState":
        """``wanted``; and as it was ``before``, what an earlier configuration has set and this one does not want."""
        return cls(
            {**before.values, **{sysctl.key: sysctl.value for sysctl in wanted.sysctls}},
            {sysctl.key: sysctl.why for sysctl in wanted.sysctls},
        )

    def before(self, record: Record) -> "SysctlState":
        """What was there before us, for the parameters that are still as we set them, the last set first."""
        return SysctlState(
            {key: old for key, (old, new) in reversed(list(record.sysctls.items())) if self.values.get(key) == new}
        )


class Sysctls:
    """The part of the plumbing that is a number in /proc/sys."""

    def pieces(self, there: SysctlState, wanted: SysctlState) -> list[Piece]:
        pieces = []
        for key, value in wanted.values.items():
            found = there.values.get(key)
            state = State.OK if found == value else State.MISSING if found is None else State.MISMATCH
            detail = value if state is State.OK else f"{found if found is not None else 'not there'}, should be {value}"
            pieces.append(Piece(f"sysctl {key}", state, detail, Kind.SYSCTL, key))
        return pieces

    def steps(self, there: SysctlState, wanted: SysctlState) -> list[Step]:
        steps = []
        for key, value in wanted.values.items():
            found = there.values.get(key)
            if found != value:
                back = (_set(key, found),) if found is not None else ()
                steps.append(Step(f"sysctl {key}", wanted.why.get(key, "as it was before"), (_set(key, value),), back))
        return steps


def observe(runner: Runner, keys: Iterable[str]) -> SysctlState:
    """The values of ``keys``; one that is not there (its interface is gone) is left out."""
    values = {key: runner.ask("sysctl", "-n", key) for key in dict.fromkeys(keys)}
    return SysctlState({key: value.strip() for key, value in values.items() if value is not None})


def _set(key: str, value: str) -> Command:
    return Command(("sysctl", "-q", "-w", f"{key}={value}"))

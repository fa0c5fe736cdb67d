"""A record of what is in the kernel ends with the boot; who sees another boot id than the others is no other boot."""

from pathlib import Path

import pytest
from recorder import Recorder

from gfwtools.config.model import Config
from gfwtools.plumbing import this_boot
from gfwtools.plumbing.this_boot import boot_id

#: What a unit with a sandbox sees in a container that has a boot id of its own, and what a shell sees there.
UNIT, SHELL = (Recorder({("sysctl", "-n", "kernel/random/boot_id"): f"{name}\n"}) for name in ("unit", "shell"))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(root=tmp_path)


def test_two_boot_ids_are_one_boot_once_one_is_noted(config: Config) -> None:
    assert boot_id(config.paths, UNIT) != boot_id(config.paths, SHELL)
    this_boot.note(config.paths, UNIT)
    assert boot_id(config.paths, SHELL) == boot_id(config.paths, UNIT)


def test_with_an_empty_run_folder_the_kernels_boot_id_counts(config: Config) -> None:
    before = boot_id(config.paths, SHELL)
    this_boot.note(config.paths, SHELL)
    this_boot.forget(config.paths)
    assert boot_id(config.paths, SHELL) == before
    assert boot_id(config.paths, UNIT) != before


def test_a_note_of_another_start_of_process_1_does_not_count(config: Config, tmp_path: Path) -> None:
    """A container that keeps /run on its disk was booted again."""
    this_boot.note(config.paths, UNIT)
    note = tmp_path / "run/gfwtools/boot"
    note.write_text(f"{note.read_text().rstrip()}9\n")
    assert boot_id(config.paths, SHELL).startswith("shell/")

"""Programs that tests need. They are installed for root, for whom a missing one is a failure; others may lack some."""

import os
import shutil

import pytest

__all__ = ["needs"]


def needs(tool: str) -> str:
    """Where ``tool`` is; without it the test fails as root, and is skipped for anybody else."""
    path = shutil.which(tool, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin")))
    if path is None:
        (pytest.fail if os.geteuid() == 0 else pytest.skip)(f"no {tool}; run: make packages")
    return path

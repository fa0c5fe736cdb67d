"""System calls that fail when a test says so."""

import errno
import itertools
import os
from collections.abc import Callable

import pytest

EIO = OSError(errno.EIO, "Input/output error")


def failing(call: str, when: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """``os.CALL`` raises ``error`` whenever ``when`` says so of its how many-th call this is."""
    real = getattr(os, call)
    count = itertools.count(1)

    def fake(*args: object, **options: object) -> object:
        if when(next(count)):
            raise error
        return real(*args, **options)

    monkeypatch.setattr(os, call, fake)

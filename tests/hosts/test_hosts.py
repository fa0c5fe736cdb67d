"""`make test-hosts`: real Debian hosts, one event after the other. One claim: whatever happens, the host is right."""

from collections.abc import Iterator
from contextlib import ExitStack

import debian
import pytest
from events import Event, events_of, recover
from kinds import HOSTS, Host
from subject import Subject

pytestmark = pytest.mark.host

CASES = [pytest.param(host, event, id=f"{host.name}:{event.name}") for host in HOSTS for event in events_of(host)]


class Bench:
    """The host whose turn it is. It is built for its first event and taken away when another host's turn comes."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._host: Host | None = None

    def subject(self, host: Host) -> Subject:
        if host != self._host:
            self.close()
            self._host, self._subject = host, Subject(host)
            try:
                self._stack.enter_context(self._subject)
            except debian.Unavailable as error:
                self._subject.lost = f"{host.suite} cannot be built here: {error}"
        return self._subject

    def close(self) -> None:
        self._stack.close()
        self._host = None


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    built = Bench()
    yield built
    built.close()


@pytest.mark.parametrize(("host", "event"), CASES)
def test_after_each_event_the_host_is_right(bench: Bench, host: Host, event: Event) -> None:
    subject = bench.subject(host)
    if subject.lost:
        pytest.skip(subject.lost)
    try:
        faults = event.run(subject)
    except AssertionError as error:
        faults = [str(error)]
    if faults and event.recovers:
        recover(subject)
    if faults:
        pytest.fail("\n  ".join([f"{len(faults)} faults after: {event.name}", *faults]), pytrace=False)

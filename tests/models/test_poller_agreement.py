"""The pollers against one another, and against a model of what is ready.

epoll, poll, select and kqueue watch the same descriptors for the same things. What a poller says of
what nobody waits for does not count, the loop passes over it.
"""

import selectors
import socket
from contextlib import ExitStack

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aws_io_async.event_loop import _poller
from aws_io_async.event_loop._poller import EVENT_READ, EVENT_WRITE, Poller
from tests import kqueue_emulation
from tests.faults._report import Fault
from tests.models.rounds import checked
from tests.pollers import SELECTORS
from tests.test_poller import seen

BOTH = EVENT_READ | EVENT_WRITE
MASKS = st.sampled_from([0, EVENT_READ, EVENT_WRITE, BOTH])
FORGETFUL = ("EpollSelector", "KqueueSelector")
"""Those whose kernel objects forget a descriptor that is closed."""
USED_ANEW = Fault(
    "Limits",
    "descriptors are closed behind the poller's back, and their numbers used anew",
    "who has the number now hears what is so, and of all of that",
)


class End:
    """One end of a pair of sockets, and what is known of it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.sock = sock
        self.peer: End = self
        self.watched = 0
        self.unread = 0
        self.ended = False  # the peer says no more
        self.full = False

    @property
    def fd(self) -> int:
        return self.sock.fileno()

    @property
    def is_open(self) -> bool:
        return self.fd >= 0

    @property
    def ready(self) -> int:
        """What it is ready for, of what is waited for."""
        readable = self.unread > 0 or self.ended
        writable = not self.full or not self.peer.is_open
        mask = (EVENT_READ if readable else 0) | (EVENT_WRITE if writable else 0)
        return mask & self.watched


class PollerMachine(RuleBasedStateMachine):
    """A few pairs of sockets, which come and go, and whose numbers are used again."""

    selectors: tuple[str, ...] = tuple(SELECTORS)
    tells_before_it_closes = True

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(kqueue_emulation.installed())
        self.pollers: dict[str, Poller] = {
            name: _poller.take_over(getattr(selectors, name)()) for name in self.selectors
        }
        self.ends: list[End] = []
        self.registered: dict[int, int] = {}
        """By number, as the loop has it: not told of what was closed behind its back."""

    def update(self, end: End, mask: int) -> None:
        old = self.registered.pop(end.fd, 0)
        if mask != old:
            for poller in self.pollers.values():
                poller.update(end.fd, old, mask)
        if mask:
            self.registered[end.fd] = mask
        end.watched = mask

    @precondition(lambda self: len(self.ends) < 6)
    @rule()
    def open(self) -> None:
        here, there = map(End, socket.socketpair())
        here.peer, there.peer = there, here
        self.ends += [here, there]
        for end in (here, there):  # the number may have been another's: see `update`
            old = self.registered.pop(end.fd, 0)
            if old:
                self.registered[end.fd] = old
                self.update(end, BOTH if old != BOTH else 0)

    @precondition(lambda self: self.ends)
    @rule(data=st.data(), mask=MASKS)
    def watch(self, data: st.DataObject, mask: int) -> None:
        end = data.draw(st.sampled_from(self.ends))
        self.update(end, mask & EVENT_READ if end.peer.ended else mask)

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """One byte, if there is none: when exactly there is no more room, no model could tell."""
        end = data.draw(st.sampled_from(self.ends))
        if end.peer.unread or end.peer.ended or not end.peer.is_open:
            return
        end.peer.unread += end.sock.send(b"x")

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def fill(self, data: st.DataObject) -> None:
        """Until there is no room."""
        end = data.draw(st.sampled_from(self.ends))
        try:
            while True:
                end.peer.unread += end.sock.send(bytes(4096))
        except BlockingIOError:
            end.full = True
        except BrokenPipeError:
            pass

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def read_all(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from(self.ends))
        try:
            while got := end.sock.recv(1 << 20):
                end.unread -= len(got)
        except (BlockingIOError, ConnectionResetError):
            pass
        assert end.unread == 0
        end.peer.full = False

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def say_no_more(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from(self.ends))
        if end.peer.is_open:
            self.update(end, end.watched & EVENT_READ)  # it has nothing to write any more
            end.sock.shutdown(socket.SHUT_WR)
            end.peer.ended = True

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        end = data.draw(st.sampled_from(self.ends))
        if self.tells_before_it_closes:
            self.update(end, 0)
        end.sock.close()
        end.peer.ended = True
        self.ends.remove(end)

    @invariant()
    def all_say_the_same_and_what_is_so(self) -> None:
        watched = {end.fd: end for end in self.ends if end.watched}
        expected = {fd: end.ready for fd, end in watched.items() if end.ready}
        for name, poller in self.pollers.items():
            found = {
                fd: events & watched[fd].watched
                for fd, events in seen(poller).items()
                if fd in watched or self.tells_before_it_closes
            }
            assert {fd: events for fd, events in found.items() if events} == expected, name

    def teardown(self) -> None:
        for end in list(self.ends):
            self.update(end, 0)
            end.sock.close()
        for poller in self.pollers.values():
            assert seen(poller) == {}
            poller.close()
        self.stack.close()
        if not self.tells_before_it_closes:
            USED_ANEW.seen("as the model has it")


class ForgetfulMachine(PollerMachine):
    """Descriptors are closed without a word, and their numbers used anew, as only bugs do."""

    selectors = tuple(name for name in SELECTORS if name in FORGETFUL)
    tells_before_it_closes = False


TestAgreement = checked(PollerMachine, 60)
TestNumbersUsedAnew = checked(ForgetfulMachine, 60)

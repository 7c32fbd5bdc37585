"""`select.kqueue` for Linux, so that what is written for BSD and macOS can be exercised here.

`Kqueue` and `Kevent` behave as CPython's `select.kqueue` and `select.kevent` do over kqueue(2) as
macOS documents it, for the filters READ and WRITE; any other filter is unknown (EINVAL).

Theory of operation. A registration is an (fd, filter) pair with flags and udata of its own, while
an epoll has one entry an fd. So each filter has an epoll for its registrations, and both are
entries of a third, which `control` waits on and whose descriptor is the queue's: a thread blocked
in `control` sees at once what another one registers.

An entry is EPOLLET for EV_CLEAR. All others are EPOLLONESHOT and armed again when they are
reported, which keeps them level-triggered and leaves in our hands whether they fire again:
- A disabled registration stays in its epoll, fires at most once, unreported, and EV_ENABLE arms it.
- close() ends a BSD registration even when the open file lives on in a duplicate, whereas epoll
  goes on reporting it. Such an entry fires once more, is found dead, as its descriptor is closed
  or is another file now (device and inode tell), and is not armed again.

epoll refuses regular files. They are looked at in each `control`, and every few milliseconds while
it waits; the descriptor of the queue does not become readable for them, and a thread that was
waiting already does not see one that another thread adds.

What differs from a BSD:
- A pending socket error cannot be looked at on Linux without taking it from the program. `fflags`
  is therefore inferred: ECONNREFUSED if the socket was not connected yet, else ECONNRESET.
- `data` is 1 where Linux cannot count: listening sockets, terminals, event and process descriptors.
- EVFILT_WRITE has no EV_EOF after a local shutdown(SHUT_WR), and a socket that never called
  connect() looks hung up.
- NOTE_LOWAT is ignored. Timeouts are rounded up to milliseconds.
"""

from tests.kqueue_emulation._install import emulated_select, installed, kqueue_selector_class
from tests.kqueue_emulation._kevent import CONSTANTS, EV_DISPATCH, EV_RECEIPT, Kevent
from tests.kqueue_emulation._kqueue import Kqueue

__all__ = [
    "CONSTANTS",
    "EV_DISPATCH",
    "EV_RECEIPT",
    "Kevent",
    "Kqueue",
    "emulated_select",
    "installed",
    "kqueue_selector_class",
]

"""A DNS server on loopback, for tests: UDP and TCP on one port, on a thread of its own.

It answers from `records`, and the test may change these, make it fail, fall silent, or die and come
back on the same port. Written against RFC 1035, section 4.1, without a DNS library, as it is there
to check one.
"""

import selectors
import socket
import struct
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.tally import Tally

NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
CODES = {"A": 1, "CNAME": 5, "AAAA": 28}
TYPES = {code: name for name, code in CODES.items()}

Record = tuple[str, int]
"""Address or alias, and TTL."""


class DnsServer:
    """Runs while its `with` statement does. Names are in lower case, without the last dot."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, str], list[Record]] = {}
        """By name and type: A, AAAA or CNAME."""
        self.rcodes = dict.fromkeys(CODES, NOERROR)
        """By type: anything else is the answer to every question of it."""
        self.silent = False
        self.garble: Callable[[bytes], bytes | None] | None = None
        """What to make of each answer before it is sent; None for losing it."""
        self.questions: list[tuple[str, str]] = []
        self.asked = Tally()
        self.address: tuple[str, int] = ("127.0.0.1", 0)
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def fail(self, rcode: int) -> None:
        """Answer every question with `rcode`; NOERROR ends that."""
        self.rcodes = dict.fromkeys(CODES, rcode)

    def start(self) -> None:
        """Serve: on the port of before, if there was one."""
        self._tcp = socket.create_server(self.address)
        self.address = self._tcp.getsockname()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(self.address)
        self._bell, self._rope = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name="dns-server")
        self._thread.start()

    def stop(self) -> None:
        """Die: whoever asks is refused by the system."""
        if self._thread is not None:
            self._rope.send(b"x")
            self._thread.join()
            self._thread = None
            for sock in (self._tcp, self._udp, self._bell, self._rope):
                sock.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._tcp, self._udp, self._bell):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._bell in ready:
                    return
                if self._udp in ready:
                    query, peer = self._udp.recvfrom(4096)
                    answer = self._answer(query, limit=512)
                    if answer is not None:
                        self._udp.sendto(answer, peer)
                if self._tcp in ready:
                    self._serve_connection()

    def _serve_connection(self) -> None:
        connection, _ = self._tcp.accept()
        with connection, connection.makefile("rb") as file:
            connection.settimeout(10)
            (length,) = struct.unpack("!H", file.read(2))
            answer = self._answer(file.read(length), limit=65535)
            if answer is not None:
                connection.sendall(struct.pack("!H", len(answer)) + answer)

    def _answer(self, query: bytes, limit: int) -> bytes | None:
        (number,) = struct.unpack_from("!H", query)
        name, end = _read_name(query, 12)
        code, _ = struct.unpack_from("!HH", query, end)
        question = query[12 : end + 4]
        record_type = TYPES.get(code, str(code))
        self.questions.append((name, record_type))
        self.asked.add()
        if self.silent:
            return None
        rcode, records = self._look_up(name, record_type)
        body = question + b"".join(records)
        flags = 0x8180 | rcode  # a response, recursion desired and available
        if 12 + len(body) > limit:
            flags, body, records = flags | 0x0200, question, []  # truncated: ask by TCP
        answer = struct.pack("!6H", number, flags, 1, len(records), 0, 0) + body
        return answer if self.garble is None else self.garble(answer)

    def _look_up(self, name: str, record_type: str) -> tuple[int, list[bytes]]:
        if self.rcodes.get(record_type, NOERROR) != NOERROR:
            return self.rcodes[record_type], []
        if not any(name == known for known, _ in self.records):
            return NXDOMAIN, []
        records = []
        while alias := self.records.get((name, "CNAME")):
            records.append(_write_record(name, "CNAME", *alias[0]))
            name = alias[0][0]
        for value, ttl in self.records.get((name, record_type), []):
            records.append(_write_record(name, record_type, value, ttl))
        return NOERROR, records


def _read_name(message: bytes, position: int) -> tuple[str, int]:
    labels = []
    while length := message[position]:
        labels.append(message[position + 1 : position + 1 + length].decode().lower())
        position += 1 + length
    return ".".join(labels), position + 1


def _write_name(name: str) -> bytes:
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def _write_record(name: str, record_type: str, value: str, ttl: int) -> bytes:
    if record_type == "CNAME":
        data = _write_name(value)
    else:
        family = socket.AF_INET6 if record_type == "AAAA" else socket.AF_INET
        data = socket.inet_pton(family, value)
    fields = struct.pack("!HHIH", CODES[record_type], 1, ttl, len(data))
    return _write_name(name) + fields + data

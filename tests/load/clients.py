"""python -m tests.load.clients PORT COUNT: that many clients of an echo server, in one process.

Each has a number. It says "connected" when all have been answered once, waits for a line, and says
"answered" when all have been answered again. They stay connected until its input ends.
"""

import asyncio
import resource
import socket
import sys

import aws_io_async

AT_A_TIME = 200


async def ask(sock: socket.socket, number: int) -> None:
    """Have a number echoed."""
    loop = asyncio.get_running_loop()
    question = number.to_bytes(8)
    await loop.sock_sendall(sock, question)
    answer = b""
    while len(answer) < len(question):
        more = await loop.sock_recv(sock, len(question) - len(answer))
        assert more, f"number {number}: the server has ended it"
        answer += more
    assert answer == question, f"number {number} got the answer of {int.from_bytes(answer)}"


async def begin(port: int, number: int, gate: asyncio.Semaphore) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    async with gate:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        await ask(sock, number)
    return sock


async def main(port: int, count: int) -> None:
    gate = asyncio.Semaphore(AT_A_TIME)
    socks = await asyncio.gather(*(begin(port, number, gate) for number in range(count)))
    sys.stdout.write("connected\n")
    sys.stdout.flush()
    sys.stdin.readline()
    await asyncio.gather(*(ask(sock, number + count) for number, sock in enumerate(socks)))
    sys.stdout.write("answered\n")
    sys.stdout.flush()
    sys.stdin.read()
    for sock in socks:
        sock.close()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    aws_io_async.run(main(int(sys.argv[1]), int(sys.argv[2])))

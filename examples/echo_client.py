"""Send lines to the echo server: `python examples/echo_client.py [PORT] [LINE ...]`."""

import asyncio
import sys

import aws_io_async


async def main(port: int, lines: list[str]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for line in lines:
        writer.write(f"{line}\n".encode())
        answer = await reader.readline()
        print(f"sent {line!r}, got back {answer.decode().rstrip()!r}")
    writer.close()
    await writer.wait_closed()


if __name__ == "__main__":
    _, *arguments = sys.argv
    aws_io_async.run(
        main(
            port=int(arguments[0]) if arguments else 8007,
            lines=arguments[1:] or ["hello", "and again"],
        )
    )

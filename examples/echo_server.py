"""A TCP echo server: `python examples/echo_server.py [PORT]`, and Ctrl-C to stop it."""

import asyncio
import sys

import aws_io_async


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass  # the client has gone
    finally:
        writer.close()


async def main(port: int) -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", port)
    async with server:
        host, port = server.sockets[0].getsockname()
        print(f"Listening on {host} port {port}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    try:
        aws_io_async.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8007))
    except KeyboardInterrupt:
        print("Stopped")

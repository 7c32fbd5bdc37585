"""Amazon S3's PutObject and GetObject, signed and retried, over channels.

    python examples/s3.py put BUCKET KEY FILE
    python examples/s3.py get BUCKET KEY FILE
    python examples/s3.py                       (both, with a local server of the package moto)

Where and as whom is said by AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
and AWS_SESSION_TOKEN. HTTP is httpx's (`pip install httpx`), its connections are channels:

- the resolver's answers go round the many addresses of S3, and leave out those that fail;
- a request that fails is signed and sent again if that may help, at most three times, later and
  later; and if much fails at the moment, less often, so that an outage is not made worse.
"""

import asyncio
import hashlib
import hmac
import os
import sys
from datetime import UTC, datetime
from typing import Self
from urllib.parse import quote

import httpx

from aws_io_async import run
from aws_io_async.async_stream import AsyncInputStream, AsyncOutputStream
from aws_io_async.errors import RetryErrorType
from aws_io_async.integrations.httpx import ChannelTransport
from aws_io_async.retry_strategy import StandardRetryStrategy


class Signer:
    """AWS Signature Version 4, for S3."""

    def __init__(self, access_key_id: str, secret: str, token: str | None, region: str) -> None:
        self._access_key_id = access_key_id
        self._secret = secret
        self._token = token
        self._region = region

    def sign(self, request: httpx.Request, now: datetime) -> None:
        """Add the headers that prove who has sent the request, and when."""
        moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
        request.headers["x-amz-date"] = moment
        request.headers["x-amz-content-sha256"] = hashlib.sha256(request.content).hexdigest()
        if self._token is not None:
            request.headers["x-amz-security-token"] = self._token

        signed = {
            name: value.strip()
            for name, value in sorted(request.headers.items())
            if name in ("host", "range") or name.startswith("x-amz-")
        }
        path, _, query = request.url.raw_path.decode().partition("?")
        canonical_request = "\n".join(
            [
                request.method,
                path,
                query,
                *(f"{name}:{value}" for name, value in signed.items()),
                "",
                ";".join(signed),
                request.headers["x-amz-content-sha256"],
            ]
        )
        scope = f"{day}/{self._region}/s3/aws4_request"
        digest = hashlib.sha256(canonical_request.encode()).hexdigest()
        key = f"AWS4{self._secret}".encode()
        for part in (*scope.split("/"), f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"):
            key = hmac.digest(key, part.encode(), "sha256")
        request.headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self._access_key_id}/{scope},"
            f"SignedHeaders={';'.join(signed)},Signature={key.hex()}"
        )


def error_type(error: BaseException) -> RetryErrorType:
    """How the retry strategy should take an error; a CLIENT_ERROR is not retried."""
    if isinstance(error, httpx.TransportError):
        return RetryErrorType.TRANSIENT
    if isinstance(error, httpx.HTTPStatusError):
        status = error.response.status_code
        if status == 429 or b"<Code>SlowDown</Code>" in error.response.content:
            return RetryErrorType.THROTTLING
        if status >= 500:
            return RetryErrorType.SERVER_ERROR
    return RetryErrorType.CLIENT_ERROR


class S3:
    """Objects in the buckets of an endpoint."""

    def __init__(self, endpoint: str, signer: Signer) -> None:
        self._endpoint = httpx.URL(endpoint)
        self._signer = signer
        self._http = httpx.AsyncClient(transport=ChannelTransport())
        self._strategy = StandardRetryStrategy()  # one for all requests: they share its budget

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def create_bucket(self, bucket: str) -> None:
        await self._request("PUT", bucket, "")

    async def put_object(self, bucket: str, key: str, body: bytes) -> None:
        await self._request("PUT", bucket, key, body)

    async def get_object(self, bucket: str, key: str) -> bytes:
        return (await self._request("GET", bucket, key)).content

    async def _request(
        self, method: str, bucket: str, key: str, body: bytes = b""
    ) -> httpx.Response:
        url = self._endpoint.join(f"/{bucket}/{quote(key, safe='/-_.~')}")
        async with self._strategy.attempt(self._endpoint.host, classify=error_type) as attempt:
            while True:
                # A new one each time: what was signed holds for some minutes only.
                request = self._http.build_request(method, url, content=body)
                self._signer.sign(request, datetime.now(UTC))
                try:
                    response = await self._http.send(request)
                    response.raise_for_status()
                except httpx.HTTPError as error:
                    await attempt.retry(error)  # waits, or raises the error
                    print(f"{method} {url.path} is tried again after: {error!r}", file=sys.stderr)
                else:
                    return response


def s3_of_environment() -> S3:
    environment = os.environ
    for name in "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY":
        if name not in environment:
            raise SystemExit(f"{name} is not set")
    region = environment.get("AWS_REGION", "us-east-1")
    signer = Signer(
        environment["AWS_ACCESS_KEY_ID"],
        environment["AWS_SECRET_ACCESS_KEY"],
        environment.get("AWS_SESSION_TOKEN"),
        region,
    )
    endpoint = environment.get("AWS_ENDPOINT_URL", f"https://s3.{region}.amazonaws.com")
    return S3(endpoint, signer)


async def transfer(action: str, bucket: str, key: str, file: str) -> None:
    async with s3_of_environment() as s3:
        if action == "put":
            async with await AsyncInputStream.from_path(file) as source:
                body = b"".join([part async for part in source])
            await s3.put_object(bucket, key, body)
        elif action == "get":
            body = await s3.get_object(bucket, key)
            async with await AsyncOutputStream.from_path(file) as sink:
                await sink.write(body)
        else:
            raise SystemExit(f"neither put nor get: {action}")
    print(f"{action} s3://{bucket}/{key}: done")


async def demonstrate() -> None:
    """Put an object into a server of our own, and get it back."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert server.stdout is not None
        line = b""
        while b"Running on " not in line:
            line = await server.stdout.readline()
            assert line, "moto's server has not started"
        os.environ["AWS_ENDPOINT_URL"] = line.rpartition(b" ")[2].decode().strip()
        os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "anything"
        async with s3_of_environment() as s3:
            await s3.create_bucket("bucket")
            for size in 10, 10_000_000:
                body = os.urandom(size)
                await s3.put_object("bucket", f"{size} bytes", body)
                came_back = await s3.get_object("bucket", f"{size} bytes")
                print(f"{size} bytes put and got; they are the same: {came_back == body}")
    finally:
        server.terminate()
        await server.communicate()


if __name__ == "__main__":
    if len(sys.argv) not in (1, 5):
        raise SystemExit(__doc__)
    try:
        run(transfer(*sys.argv[1:]) if len(sys.argv) > 1 else demonstrate())
    except httpx.HTTPError as error:
        answer = error.response.text if isinstance(error, httpx.HTTPStatusError) else ""
        notes = getattr(error, "__notes__", [])  # of the retry strategy: why it was the last try
        raise SystemExit("\n".join([repr(error), answer, *notes])) from error

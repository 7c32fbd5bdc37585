"""aiobotocore's S3 client on our loop, asyncio's and uvloop's, with moto's server."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.applications.traffic import MIB, blob
from tests.s3_server import s3_server

pytest.importorskip("moto", reason="needs moto's server")
config: Any = pytest.importorskip("aiobotocore.config")
session: Any = pytest.importorskip("aiobotocore.session")
exceptions: Any = pytest.importorskip("botocore.exceptions")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with s3_server() as running:
        yield running


@contextlib.asynccontextmanager
async def client(url: str, **options: Any) -> AsyncIterator[Any]:
    """aiobotocore's client of the server."""
    async with session.get_session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=url,
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=config.AioConfig(proxies={}, **options),
    ) as s3:
        yield s3


@contextlib.asynccontextmanager
async def bucket(url: str, **options: Any) -> AsyncIterator[tuple[Any, str]]:
    """A client, and the name of an empty bucket."""
    name = f"bucket-{uuid.uuid4()}"
    async with client(url, **options) as s3:
        await s3.create_bucket(Bucket=name)
        yield s3, name


async def get(s3: Any, name: str, key: str) -> bytes:
    answer = await s3.get_object(Bucket=name, Key=key)
    async with answer["Body"] as body:
        content: bytes = await body.read()
    return content


@pytest.mark.parametrize("size", [0, 10, 8 * MIB])
async def test_an_object_is_put_and_got(url: str, size: int) -> None:
    content = blob(size)
    async with bucket(url) as (s3, name):
        await s3.put_object(Bucket=name, Key="a folder/ä name & more+", Body=content)
        assert await get(s3, name, "a folder/ä name & more+") == content


async def test_an_object_is_read_in_parts(url: str) -> None:
    content = blob(MIB)
    async with bucket(url) as (s3, name):
        await s3.put_object(Bucket=name, Key="key", Body=content)
        answer = await s3.get_object(Bucket=name, Key="key", Range="bytes=1000-900999")
        async with answer["Body"] as body:
            parts = [part async for part in body.iter_chunks(10_000)]
    assert b"".join(parts) == content[1000:901_000]


async def test_a_listing_in_pages(url: str) -> None:
    keys = [f"{number:02}" for number in range(25)]
    async with bucket(url) as (s3, name):
        await asyncio.gather(*(s3.put_object(Bucket=name, Key=key, Body=b"") for key in keys))
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=name, PaginationConfig={"PageSize": 10}
        )
        found = [[entry["Key"] for entry in page["Contents"]] async for page in pages]
    assert found == [keys[:10], keys[10:20], keys[20:]]


async def test_a_key_that_is_not_there(url: str) -> None:
    async with bucket(url) as (s3, name):
        with pytest.raises(exceptions.ClientError) as caught:
            await s3.get_object(Bucket=name, Key="nothing")
        assert caught.value.response["Error"]["Code"] == "NoSuchKey"
        assert "Contents" not in await s3.list_objects_v2(Bucket=name)


async def test_many_at_once(url: str) -> None:
    """More than there may be connections."""
    async with bucket(url, max_pool_connections=20) as (s3, name):
        for number in range(10):
            await s3.put_object(Bucket=name, Key=f"{number}", Body=b"%d" % number * 10_000)
        answers = await asyncio.gather(*(get(s3, name, f"{n % 10}") for n in range(200)))
    assert answers == [b"%d" % (number % 10) * 10_000 for number in range(200)]


async def test_a_request_that_is_cancelled(url: str) -> None:
    """Its only connection is free again, and the client goes on."""
    async with bucket(url, max_pool_connections=1) as (s3, name):
        await s3.put_object(Bucket=name, Key="key", Body=blob(8 * MIB))
        answer = await s3.get_object(Bucket=name, Key="key")
        async with answer["Body"]:  # which holds the connection
            waiting = asyncio.ensure_future(get(s3, name, "key"))
            await asyncio.sleep(0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await get(s3, name, "key") == blob(8 * MIB)


async def test_nobody_listens() -> None:
    async with client("http://127.0.0.1:1", retries={"total_max_attempts": 1}) as s3:
        with pytest.raises(exceptions.EndpointConnectionError):
            await s3.list_buckets()

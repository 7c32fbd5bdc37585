"""The example of S3 against moto's server, which checks signatures, with faults in between."""

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from examples.s3 import Signer
from tests.applications.traffic import blob
from tests.examples import run, start
from tests.s3_server import s3_server

pytest.importorskip("moto", reason="needs moto's server")

BUCKET = "bucket"
SETUP = ("CreateUser", "CreateAccessKey", "PutUserPolicy")
STATEMENT = '{"Effect": "Allow", "Action": "*", "Resource": "*"}'
POLICY = f'{{"Version": "2012-10-17", "Statement": [{STATEMENT}]}}'

Environment = dict[str, str]
Fault = Callable[[socket.socket, bytes], None]


@pytest.fixture(scope="module")
def moto() -> Iterator[Environment]:
    """A running server with a bucket, and the environment for the one who may use it."""
    actions_before_it_checks = f"{len(SETUP) + 1}"
    with s3_server(INITIAL_NO_AUTH_ACTION_COUNT=actions_before_it_checks) as url:
        yield {"AWS_ENDPOINT_URL": url, **_set_up(url)}


def _set_up(url: str) -> Environment:
    """Make a user and a bucket, while nothing is checked yet; the user's keys."""
    credential = "Credential=any/20260101/us-east-1/{}/aws4_request, SignedHeaders=, Signature=0"
    with httpx.Client(base_url=url, trust_env=False) as http:

        def ask(service: str, method: str, path: str, **data: str) -> str:
            headers = {"Authorization": f"AWS4-HMAC-SHA256 {credential.format(service)}"}
            answer = http.request(method, path, data=data, headers=headers)
            assert answer.status_code == 200, answer.text
            return answer.text

        ask("iam", "POST", "/", Action="CreateUser", UserName="user")
        answer = ask("iam", "POST", "/", Action="CreateAccessKey", UserName="user")
        document = {"PolicyName": "all", "PolicyDocument": POLICY}
        ask("iam", "POST", "/", Action="PutUserPolicy", UserName="user", **document)
        ask("s3", "PUT", f"/{BUCKET}")
    names = {"AWS_ACCESS_KEY_ID": "AccessKeyId", "AWS_SECRET_ACCESS_KEY": "SecretAccessKey"}
    return {name: re.findall(f"<{tag}>(.*)</{tag}>", answer)[0] for name, tag in names.items()}


class Proxy:
    """Stands before a server, and gives the connections their faults, one each; then none."""

    def __init__(self, url: str, *faults: Fault) -> None:
        self._target = httpx.URL(url)
        self.faults = list(faults)
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> "Proxy":
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                thread = threading.Thread(target=self._serve, args=(client,))
                thread.start()
                self._threads.append(thread)

    def _serve(self, client: socket.socket) -> None:
        with client:
            if self.faults:
                self.faults.pop(0)(client, _request(client))
                return
            address = (self._target.host, self._target.port)
            with socket.create_connection(address) as server:
                back = threading.Thread(target=_relay, args=(server, client))
                back.start()
                _relay(client, server)
                back.join()


def _relay(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


def _request(client: socket.socket) -> bytes:
    """A request with its body, if it says how long that is."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += client.recv(65536)
    head, _, body = request.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: *(\d+)", head)
    while found and len(body) < int(found[1]):
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def _answer(status: str, body: bytes) -> Fault:
    def fault(client: socket.socket, request: bytes) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode() + body)

    return fault


def _reset(client: socket.socket, request: bytes) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _half(client: socket.socket, request: bytes) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf")


ILL = _answer("503 Service Unavailable", b"")
SLOW_DOWN = _answer("503 Slow Down", b"<Error><Code>SlowDown</Code></Error>")
FAULTS = {"503": ILL, "slow down": SLOW_DOWN, "reset": _reset, "half an answer": _half}


def through(moto: Environment, proxy: Proxy) -> Environment:
    return {**moto, "AWS_ENDPOINT_URL": proxy.url}


def test_an_object_is_put_and_got(moto: Environment, tmp_path: Path) -> None:
    body = blob(3_000_000)
    (tmp_path / "there").write_bytes(body)
    for key in ("key", "a folder/ä name & more+", "~tilde/…"):
        put = run("s3.py", "put", BUCKET, key, str(tmp_path / "there"), **moto)
        assert put == f"put s3://{BUCKET}/{key}: done\n"
        run("s3.py", "get", BUCKET, key, str(tmp_path / "back"), **moto)
        assert (tmp_path / "back").read_bytes() == body


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_survived(moto: Environment, tmp_path: Path, name: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"the object")
    with Proxy(moto["AWS_ENDPOINT_URL"], FAULTS[name], FAULTS[name]) as proxy:
        output, errors = _run_with_errors("put", "key", file, through(moto, proxy))
        assert output == f"put s3://{BUCKET}/key: done\n"
        assert errors.count(f"PUT /{BUCKET}/key is tried again after: ") == 2
        proxy.faults.append(FAULTS[name])
        output, errors = _run_with_errors("get", "key", tmp_path / "back", through(moto, proxy))
        assert errors.count(f"GET /{BUCKET}/key is tried again after: ") == 1
    assert (tmp_path / "back").read_bytes() == b"the object"


def _run_with_errors(action: str, key: str, file: Path, moto: Environment) -> tuple[str, str]:
    process = start("s3.py", action, BUCKET, key, str(file), **moto)
    output, errors = process.communicate(timeout=50)
    assert process.returncode == 0, errors
    return output, errors


def test_a_server_that_stays_ill_is_given_up(moto: Environment, tmp_path: Path) -> None:
    with Proxy(moto["AWS_ENDPOINT_URL"], *[ILL] * 10) as proxy:
        process = start("s3.py", "get", BUCKET, "key", "unused", **through(moto, proxy))
        _, errors = process.communicate(timeout=50)
        assert proxy.connections == 4  # once, and three retries
    assert process.returncode == 1
    assert errors.count("503 Service Unavailable") == 4
    assert "not retried: " in errors.splitlines()[-1]
    assert "AWS_IO_MAX_RETRIES_EXCEEDED" in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "another"}, "SignatureDoesNotMatch"),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId"),
        ({}, "NoSuchKey"),
    ],
)
def test_what_is_the_clients_own_fault_is_not_retried(
    moto: Environment, change: Environment, code: str
) -> None:
    process = start("s3.py", "get", BUCKET, "nowhere", "unused", **{**moto, **change})
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 1
    assert f"<Code>{code}</Code>" in errors
    assert "tried again" not in errors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--help"], "python examples/s3.py put BUCKET"), (["get", "b", "k", "f"], "is not set")],
    ids=["too few arguments", "no keys"],
)
def test_misuse_is_told(arguments: list[str], told: str) -> None:
    process = start("s3.py", *arguments)
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 1
    assert told in errors
    assert "Traceback" not in errors


def test_the_demonstration() -> None:
    assert run("s3.py").splitlines() == [
        "10 bytes put and got; they are the same: True",
        "10000000 bytes put and got; they are the same: True",
    ]


def test_signatures_are_those_of_amazons_documentation() -> None:
    """The examples of "Signature Calculations for the Authorization Header", S3's API reference."""
    signer = Signer(
        "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, "us-east-1"
    )
    now = datetime(2013, 5, 24, tzinfo=UTC)
    host = "https://examplebucket.s3.amazonaws.com"
    request = httpx.Request("GET", f"{host}/test.txt", headers={"Range": "bytes=0-9"})
    signer.sign(request, now)
    assert request.headers["authorization"].endswith(
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    request = httpx.Request("GET", f"{host}/?lifecycle=")
    signer.sign(request, now)
    assert request.headers["authorization"].endswith(
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
    )

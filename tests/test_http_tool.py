"""The tool `http`: what it asks and gives, and what it refuses: private networks, floods, and leaks to others."""

import asyncio
import base64
import gzip
import ipaddress
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from certificates import certificate
from hypothesis import given
from hypothesis import strategies as st
from web_server import Asked, WebServer, web_server

from perdure.actors import http_tool
from perdure.actors.addresses import AddressRefused, is_public
from perdure.actors.context import Context
from perdure.actors.http_tool import TooLarge
from perdure.actors.models import RateLimited, Refused, Unavailable
from perdure.actors.outside import Outside, Reach
from perdure.actors.secret_values import Secrets
from perdure.actors.tools import call_async, find
from perdure.cluster.settings import Settings
from perdure.definitions.builtin_tools import BUILTINS
from perdure.errors import BadInput

HTTP = BUILTINS["http"].place
JSON = {"content-type": "application/json"}


@pytest.fixture
async def web() -> AsyncIterator[WebServer]:
    async with web_server() as server:
        yield server


async def ask(allow: tuple[str, ...] = ("127.0.0.1/32",), secrets: Secrets | None = None, **arguments: Any) -> Any:
    context = Context("x", "n", 1, "x/n", outside=Outside(Reach(http_allow=allow), secrets))
    return await call_async(find(HTTP), arguments, context)


async def test_it_sends_what_it_is_given_and_returns_status_headers_and_json(web: WebServer) -> None:
    web.answers["/orders"] = (201, {**JSON, "set-cookie": "session=1"}, b'{"id": 7}')
    reply = await ask(
        url=web.url("/orders"), method="POST", json={"a": [1]}, query={"dry": True, "tag": ["x", "y"]},
        headers={"X-Tenant": "t"}, auth={"bearer": "token"},
    )  # fmt: skip
    assert reply["status"] == 201
    assert reply["json"] == {"id": 7}
    assert reply["url"] == web.url("/orders")
    assert "set-cookie" not in reply["headers"]
    asked = web.asked[0]
    assert (asked.method, asked.path) == ("POST", "/orders?dry=true&tag=x&tag=y")
    assert json.loads(asked.body) == {"a": [1]}
    assert asked.headers["x-tenant"] == "t"
    assert asked.headers["authorization"] == "Bearer token"
    assert asked.headers["host"] == f"127.0.0.1:{web.port}"


async def test_text_and_bytes_come_back_as_what_they_are(web: WebServer) -> None:
    web.answers |= {"/t": (200, {"content-type": "text/plain"}, "ä".encode()), "/b": (200, {}, b"\xff\x00")}
    web.answers["/bad"] = (200, JSON, b"{no")
    assert (await ask(url=web.url("/t")))["text"] == "ä"
    assert base64.b64decode((await ask(url=web.url("/b")))["base64"]) == b"\xff\x00"
    assert (await ask(url=web.url("/bad")))["text"] == "{no"


@pytest.mark.parametrize(
    ("status", "error"), [(404, Refused), (429, RateLimited), (500, Unavailable), (503, Unavailable)]
)
async def test_a_bad_status_is_an_error_of_its_own_type(web: WebServer, status: int, error: type[Exception]) -> None:
    web.answers["/x"] = (status, {"retry-after": "7"}, b"why not")
    with pytest.raises(error, match=rf"GET {web.url('/x')} answered {status}: why not") as caught:
        await ask(url=web.url("/x?key=hidden"))
    assert getattr(caught.value, "retry_after", 7) == 7
    assert (await ask(url=web.url("/x"), errors=False))["status"] == status


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "0.0.0.0", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"],
)
async def test_private_addresses_are_refused_however_they_are_written(web: WebServer, host: str) -> None:
    with pytest.raises(AddressRefused, match="no public address"):
        await ask(allow=(), url=web.url("/x", host))
    assert web.asked == []


@pytest.mark.parametrize("allow", ["127.0.0.0/8", "127.0.0.1", "localhost"])
async def test_the_operator_may_allow_a_network_an_address_or_a_name(web: WebServer, allow: str) -> None:
    web.answers["/x"] = (200, JSON, b"1")
    host = "localhost" if allow == "localhost" else "127.0.0.1"
    assert (await ask(allow=(allow,), url=web.url("/x", host)))["json"] == 1


async def test_a_redirect_to_a_private_address_is_refused(web: WebServer) -> None:
    async with web_server("127.0.0.2") as inner:
        inner.answers["/secret"] = (200, JSON, b'"inner"')
        web.answers["/x"] = (302, {"location": inner.url("/secret", "127.0.0.2")}, b"")
        with pytest.raises(AddressRefused, match=r"127\.0\.0\.2"):
            await ask(url=web.url("/x"))
        assert inner.asked == []


async def test_a_name_that_changes_its_mind_is_connected_to_as_it_was_checked(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up = []

    async def rebinding(host: str, port: int, **_: Any) -> list[Any]:
        looked_up.append(host)
        address = "127.0.0.1" if len(looked_up) == 1 else "169.254.169.254"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", rebinding)
    web.answers["/x"] = (200, JSON, b"1")
    assert (await ask(url=web.url("/x", "rebinds.example")))["json"] == 1
    assert looked_up == ["rebinds.example"]
    assert web.asked[0].headers["host"] == f"rebinds.example:{web.port}"
    with pytest.raises(AddressRefused, match=r"rebinds\.example is 169\.254\.169\.254"):
        await ask(url=web.url("/x", "rebinds.example"))


async def test_tls_is_checked_against_the_name_that_was_asked_for_not_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def loopback(_host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    trusted, tls = certificate(tmp_path, "shop.example")
    monkeypatch.setattr(http_tool, "_tls", lambda: ssl.create_default_context(cafile=trusted))
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", loopback)
    async with web_server(tls=tls) as web:
        web.answers["/x"] = (200, JSON, b"1")
        assert (await ask(url=f"https://shop.example:{web.port}/x"))["json"] == 1
        with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
            await ask(url=f"https://other.example:{web.port}/x")
        assert len(web.asked) == 1


async def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    async def mixed(_host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in ("93.184.216.34", "10.0.0.1")]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", mixed)
    with pytest.raises(AddressRefused, match=r"10\.0\.0\.1"):
        await ask(allow=(), url="https://mixed.example/")


async def test_a_redirect_is_followed_and_what_was_for_the_first_server_stays_there(web: WebServer) -> None:
    async with web_server() as other:
        other.answers["/there"] = (200, JSON, b'"there"')
        web.answers["/x"] = (302, {"location": other.url("/there")}, b"")
        headers = {"X-Api-Key": "key", "Accept": "application/json"}
        reply = await ask(url=web.url("/x"), headers=headers, auth={"user": "u", "password": "p"})
        assert (reply["json"], reply["url"]) == ("there", other.url("/there"))
        assert web.asked[0].headers["authorization"] == "Basic " + base64.b64encode(b"u:p").decode()
        assert other.asked[0].headers.keys() & {"authorization", "x-api-key"} == set()
        assert other.asked[0].headers["accept"] == "application/json"


async def test_a_body_does_not_go_to_another_server_and_303_asks_for_the_result(web: WebServer) -> None:
    async with web_server() as other:
        web.answers["/307"] = (307, {"location": other.url("/there")}, b"")
        with pytest.raises(Refused, match="redirects a request with a body"):
            await ask(url=web.url("/307"), method="POST", json={"a": 1})
        assert other.asked == []
    web.answers["/303"] = (303, {"location": "/done"}, b"")
    web.answers["/done"] = (200, JSON, b'"done"')
    assert (await ask(url=web.url("/303"), method="POST", json={}))["json"] == "done"
    assert (web.asked[-1].method, web.asked[-1].body) == ("GET", b"")


async def test_redirects_have_an_end(web: WebServer) -> None:
    web.answers["/x"] = (302, {"location": "/x"}, b"")
    with pytest.raises(Refused, match="redirects more than 2 times"):
        await ask(url=web.url("/x"), redirects=2)
    assert len(web.asked) == 3
    assert (await ask(url=web.url("/x"), redirects=0))["status"] == 302


@pytest.mark.parametrize("packed", [False, True])
async def test_an_answer_that_is_too_large_is_refused_packed_or_not(web: WebServer, packed: bool) -> None:
    content = b"0" * 300_000
    web.answers["/x"] = (200, {"content-encoding": "gzip"}, gzip.compress(content)) if packed else (200, {}, content)
    with pytest.raises(TooLarge, match="more than 299999 bytes"):
        await ask(url=web.url("/x"), max_bytes=299_999)
    assert len((await ask(url=web.url("/x"), max_bytes=300_000))["text"]) == 300_000


async def test_a_packed_answer_that_ends_in_its_midst_is_none(web: WebServer) -> None:
    packed = gzip.compress(bytes(range(256)) * 10)
    web.answers["/x"] = (200, {"content-encoding": "gzip"}, packed[: len(packed) // 2])
    with pytest.raises(Unavailable, match="the packed answer ends in its midst"):
        await ask(url=web.url("/x"))


async def test_a_server_that_does_not_answer_is_given_up(web: WebServer) -> None:
    web.silent.add("/x")
    with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
        await ask(url=web.url("/x"), timeout=0.2)


async def test_a_server_that_is_not_there_may_come_back() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(Unavailable, match="ConnectError"):
        await ask(url=f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": "file:///etc/passwd"}, "begins with https://"),
        ({"url": "http://user:pw@127.0.0.1/"}, "give them under 'auth'"),
        ({"url": "http://"}, "no address that can be asked"),
        ({"url": "http://127.0.0.1/", "headers": {"Host": "x"}}, "headers host follow from the request"),
        ({"url": "http://127.0.0.1:99999/"}, "has the port 99999; there are 1 to 65535"),
        ({"url": "http://127.0.0.1/", "text": "a", "json": 1}, "a request has one body, not json and text"),
        ({"url": "http://127.0.0.1/", "auth": {"password": "p"}}, "give 'bearer', or 'user' with 'password'"),
        ({"url": "http://127.0.0.1/", "methd": "GET"}, "methd: Extra inputs are not permitted"),
        ({}, "url: Field required"),
    ],
)
async def test_what_cannot_be_asked_is_named(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        await ask(**arguments)
    assert said in str(caught.value)


@pytest.mark.parametrize("headers", [{"X-A": "a\r\nX-B: b"}, {"X A": "b"}])
async def test_a_header_that_is_none_is_not_sent_and_not_tried_again(web: WebServer, headers: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="cannot be asked like this: Illegal header"):
        await ask(url=web.url("/x"), headers=headers)
    assert web.asked == []


async def test_credentials_that_a_server_says_back_are_redacted(web: WebServer) -> None:
    def echo(asked: Asked) -> tuple[int, dict[str, str], bytes]:
        return 200, JSON, json.dumps(asked.headers).encode()

    web.answers["/x"] = echo
    secrets = Secrets()
    reply = await ask(url=web.url("/x"), auth={"user": "u", "password": "long password"}, secrets=secrets)
    assert base64.b64encode(b"u:long password").decode() in json.dumps(reply)
    assert base64.b64encode(b"u:long password").decode() not in json.dumps(secrets.redact(reply))


@pytest.mark.parametrize(
    "address",
    ["::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b:1::7f00:1", "fec0::1", "3fff::1", "5f00::1", "192.0.0.8"],
)
def test_addresses_that_are_of_no_network_of_the_public_internet_are_private(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    assert is_public(ipaddress.ip_address("2001:4860:4860::8888"))


@pytest.mark.parametrize("body", [b"NaN", b'"\\ud800"', b"[" * 5000 + b"]" * 5000])
async def test_json_that_cannot_be_recorded_comes_back_as_text(web: WebServer, body: bytes) -> None:
    web.answers["/x"] = (200, JSON, body)
    assert (await ask(url=web.url("/x")))["text"] == body.decode()


async def test_a_secret_that_a_server_says_back_in_bytes_is_redacted(web: WebServer) -> None:
    secrets = Secrets(lambda _name: "a long secret?>")
    secrets.value_of("KEY")
    for before in range(3):
        web.answers["/x"] = (200, {}, b"\xff" * (before + 1) + b"a long secret?> and more")
        reply = await ask(url=web.url("/x"), secrets=secrets)
        assert "[secret KEY]" in secrets.redact(reply["base64"])


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_as_private_as_it_is_alone(address: ipaddress.IPv4Address) -> None:
    number = int(address)
    mapped = ipaddress.IPv6Address((0xFFFF << 32) | number)
    translated = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number)
    tunnelled = ipaddress.IPv6Address((0x2002 << 112) | (number << 80))
    assert is_public(mapped) == is_public(translated) == is_public(address)
    assert not is_public(tunnelled) or is_public(address)


def test_the_setting_takes_networks_and_names_and_says_what_it_does_not_take() -> None:
    assert Settings(http_allow="10.0.0.0/8, wiki.internal").reach.http_allow == ("10.0.0.0/8", "wiki.internal")
    with pytest.raises(ValueError, match="neither a network"):
        Settings(http_allow=("http://x",))

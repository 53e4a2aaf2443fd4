"""The tool `http`: a request to a public server, within limits of time and size, to the address that was checked."""

import asyncio
import base64
import json
import ssl
import zlib
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from perdure.actors import addresses, retry_after
from perdure.actors.context import Context
from perdure.actors.models import RateLimited, Refused, Unavailable
from perdure.actors.outside import Outside
from perdure.definitions.builtin_tools import HttpCall, HttpReply
from perdure.definitions.json_values import to_json_value
from perdure.errors import BadInput, PerdureError

if TYPE_CHECKING:
    import httpx2

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TO_GET = frozenset({301, 302, 303})
_NOT_GIVEN = frozenset({"host", "content-length", "transfer-encoding", "connection", "upgrade"})
_SHOWN = 500  # characters of an answer that an error shows


class TooLarge(PerdureError):
    """An answer has more bytes than its call allows."""


async def http(call: HttpCall, context: Context) -> HttpReply:
    """Ask a server by HTTP, and follow its redirects; each address is checked, and connected to as it was checked.

    Raises RateLimited, Unavailable or Refused by the status, TooLarge, AddressRefused, or BadInput for a bad address.
    """
    await asyncio.to_thread(import_module, "httpx2")  # the first time it takes long
    try:
        async with asyncio.timeout(call.timeout):
            return await _answered(call, context.outside)
    except TimeoutError:
        raise Unavailable(f"{_shown(call.url)} did not answer within {call.timeout:g} s") from None


async def _answered(call: HttpCall, outside: Outside) -> HttpReply:
    import httpx2

    allowed = outside.reach.http_allow
    try:
        request = _request(call)
        if call.auth is not None:  # a server may say it back
            outside.secrets.hide(request.headers["authorization"].partition(" ")[2], "auth")
        for _ in range(call.redirects + 1):
            response, body = await _sent(request, call.max_bytes, allowed)
            if response.status_code not in _REDIRECTS or "location" not in response.headers or not call.redirects:
                return _reply(call, request, response, body)
            request = _redirected(request, response)
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError, ValueError) as error:
        raise BadInput(f"{_shown(call.url)} is no address that can be asked: {error}") from None
    except httpx2.LocalProtocolError as error:  # a header that is none
        raise BadInput(f"{_shown(call.url)} cannot be asked like this: {error}") from None
    except httpx2.HTTPError as error:
        raise Unavailable(f"{_shown(call.url)}: {type(error).__name__}: {error}") from error
    except OSError as error:
        raise Unavailable(f"{_shown(call.url)}: {error.strerror or error}") from error
    raise Refused(f"{_shown(call.url)} redirects more than {call.redirects} times")


def _request(call: HttpCall) -> "httpx2.Request":
    import httpx2

    given: dict[str, Any] = {}
    if call.text is not None:
        given["content"] = call.text
    elif call.form is not None:
        given["data"] = call.form
    elif "json_" in call.model_fields_set:
        given["json"] = call.json_
    url = httpx2.URL(call.url)
    _check(url)
    if wrong := sorted(_NOT_GIVEN & {key.lower() for key in call.headers}):
        raise BadInput(f"the headers {', '.join(wrong)} follow from the request; take them out")
    if call.query:
        url = url.copy_merge_params(call.query)
    headers = {"accept-encoding": "identity", "user-agent": "perdure"} | {k.lower(): v for k, v in call.headers.items()}
    if call.auth is not None and call.auth.bearer is not None:
        headers["authorization"] = f"Bearer {call.auth.bearer}"
    elif call.auth is not None:
        plain = f"{call.auth.user}:{call.auth.password or ''}".encode()
        headers["authorization"] = f"Basic {base64.b64encode(plain).decode()}"
    return httpx2.Request(call.method, url, headers=headers, **given)


def _check(url: "httpx2.URL") -> None:
    if url.scheme not in ("http", "https") or not url.host:
        raise BadInput(
            f"{_shown(str(url))} is no address that can be asked: it begins with https:// or http:// and a host"
        )
    if url.port is not None and not 0 < url.port < 65536:
        raise BadInput(f"{_shown(str(url))} has the port {url.port}; there are 1 to 65535")
    if url.userinfo:
        raise BadInput("the url holds a user or a password, which would be recorded; give them under 'auth'")


async def _sent(request: "httpx2.Request", most: int, allowed: tuple[str, ...]) -> "tuple[httpx2.Response, bytes]":
    """Send a request to one of the addresses of its host, the first that takes a connection."""
    import httpx2

    url = request.url
    failed: Exception | None = None
    for address in await addresses.resolved(url.host, url.port or (443 if url.scheme == "https" else 80), allowed):
        pinned = httpx2.Request(
            request.method, url.copy_with(host=address), headers=request.headers, content=request.content,
            extensions={"sni_hostname": url.host},
        )  # fmt: skip
        async with httpx2.AsyncClient(verify=_tls(), trust_env=False, timeout=None) as client:
            try:
                response = await client.send(pinned, stream=True, follow_redirects=False)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failed = error
                continue
            try:
                return response, await _body(response, most)
            finally:
                await response.aclose()
    raise failed or OSError("its name leads nowhere")


def _redirected(request: "httpx2.Request", response: "httpx2.Response") -> "httpx2.Request":
    """Return the request that a redirect leads to; to another server goes nothing that was meant for the first."""
    import httpx2

    url = request.url.join(response.headers["location"])
    _check(url)
    same = (url.scheme, url.host, url.port) == (request.url.scheme, request.url.host, request.url.port)
    to_get = response.status_code in _TO_GET and request.method not in ("GET", "HEAD")
    if not same and not to_get and request.content:
        raise Refused(f"{request.url.host} redirects a request with a body to {url.host}; nothing was sent there")
    dropped = {"host", "content-length", "transfer-encoding"} | ({"content-type"} if to_get else set())
    kept = ("accept", "accept-encoding", "accept-language", "user-agent")
    headers = {key: value for key, value in request.headers.items() if key not in dropped and (same or key in kept)}
    return httpx2.Request(
        "GET" if to_get else request.method, url, headers=headers, content=None if to_get else request.content
    )


async def _body(response: "httpx2.Response", most: int) -> bytes:
    """Return the body, unpacked; raise TooLarge as soon as it is larger than it may be."""
    packed = response.headers.get("content-encoding", "identity").lower()
    if packed not in ("identity", "gzip", "deflate", ""):
        raise Refused(f"the answer is packed by {packed!r}, which was not asked for")
    unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if packed in ("gzip", "deflate") else None
    found = bytearray()
    async for chunk in response.aiter_raw():
        try:
            found += chunk if unpack is None else unpack.decompress(chunk, most + 1 - len(found))
        except zlib.error as error:
            raise Refused(f"the answer is not packed as it says: {error}") from None
        if len(found) > most:
            raise TooLarge(f"the answer has more than {most} bytes; ask for less, or raise 'max_bytes'")
    if unpack is not None and found and not unpack.eof:
        raise Unavailable("the packed answer ends in its midst")
    return bytes(found)


def _reply(call: HttpCall, request: "httpx2.Request", response: "httpx2.Response", body: bytes) -> HttpReply:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    reply: dict[str, Any] = {
        "status": response.status_code, "url": _shown(str(request.url)),
        "headers": {key: value for key, value in response.headers.items() if key != "set-cookie"},
    }  # fmt: skip
    if kind == "application/json" or kind.endswith("+json"):
        with suppress(ValueError, RecursionError):  # then it is text
            reply["json"] = to_json_value(json.loads(body))
    if "json" not in reply and body:
        try:
            reply["text"] = body.decode(response.charset_encoding or "utf-8")
        except (UnicodeDecodeError, LookupError):
            reply["base64"] = base64.b64encode(body).decode()
    if response.status_code >= 400 and call.errors:
        _raise(request, response, body)
    return HttpReply(**reply)


def _raise(request: "httpx2.Request", response: "httpx2.Response", body: bytes) -> None:
    status = response.status_code
    text = body.decode("utf-8", "replace")
    said = f": {text}" if len(text) <= _SHOWN else f", with {len(text)} characters"  # a part might be of a secret
    what = f"{request.method} {_shown(str(request.url))} answered {status}{said if text else ''}"
    wait = retry_after.seconds_in(response.headers, datetime.now(UTC))
    if status == 429:
        raise RateLimited(what, wait)
    raise Unavailable(what, wait) if status >= 500 else Refused(what)


def _shown(url: str) -> str:
    """Return an address without what stands after '?', which may be secret."""
    return url.partition("?")[0].partition("#")[0]


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()

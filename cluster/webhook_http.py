"""One signed request of a webhook, as standardwebhooks.com says it, to the address that was checked."""

import asyncio
import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import httpx2

from perdure.actors import addresses, retry_after
from perdure.errors import PerdureError
from perdure.events.cloud_events import CONTENT_TYPE


class Answer(NamedTuple):
    """How a request went. why: what was wrong, None where it was taken. wait: seconds it asks for. gone: for good."""

    why: str | None
    wait: float | None = None
    gone: bool = False


def signature(secret: str, event: str, timestamp: int, body: bytes) -> str:
    """Return the header `webhook-signature`: HMAC-SHA256 over id, timestamp and body; the key of `whsec_...` is base64.

    Raises ValueError for a key that is no base64.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True) if secret.startswith("whsec_") else None
    except binascii.Error:
        raise ValueError("the secret begins with whsec_, and what follows is no base64") from None
    signed = f"{event}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key or secret.encode(), signed, hashlib.sha256).digest()).decode()


async def post(url: str, secret: str, event: str, body: bytes, timeout: float, allowed: Sequence[str]) -> Answer:
    """Send one event, without following redirects; whatever goes wrong outside is in the answer."""
    timestamp = int(datetime.now(UTC).timestamp())
    headers = {
        "content-type": CONTENT_TYPE, "user-agent": "perdure", "webhook-id": event,
        "webhook-timestamp": str(timestamp), "webhook-signature": signature(secret, event, timestamp, body),
    }  # fmt: skip
    try:
        async with asyncio.timeout(timeout):
            return await _sent(httpx2.Request("POST", url, headers=headers, content=body), allowed)
    except TimeoutError:
        return Answer(f"no answer within {timeout:g} s")
    except (httpx2.HTTPError, OSError, PerdureError) as error:
        return Answer(f"{type(error).__name__}: {error}".removesuffix(": "))


async def _sent(request: httpx2.Request, allowed: Sequence[str]) -> Answer:
    url = request.url
    found = await addresses.resolved(url.host, url.port or (443 if url.scheme == "https" else 80), allowed)
    failed: httpx2.HTTPError = httpx2.ConnectError("its name leads nowhere")
    async with httpx2.AsyncClient(trust_env=False, timeout=None) as client:
        for address in found:  # to the address that was checked: a name may change its mind
            pinned = httpx2.Request(
                "POST", url.copy_with(host=address), headers=request.headers, content=request.content,
                extensions={"sni_hostname": url.host},
            )  # fmt: skip
            try:
                response = await client.send(pinned, stream=True, follow_redirects=False)
            except httpx2.ConnectError as error:
                failed = error
                continue
            await response.aclose()  # what it says does not matter
            return _answer(response)
    raise failed


def _answer(response: httpx2.Response) -> Answer:
    if response.is_success:
        return Answer(None)
    wait = retry_after.seconds_in(response.headers, datetime.now(UTC))
    return Answer(f"it answered {response.status_code}", wait, gone=response.status_code == 410)

"""OpenAI's client: one for each endpoint, and what it raises as errors that say whether another try may help."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from perdure.actors import retry_after
from perdure.actors.models import Endpoint, RateLimited, Refused, Unavailable
from perdure.actors.replies import InvalidReply
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from openai import APIError, APIStatusError, AsyncOpenAI

_OPENAI = "https://api.openai.com/v1"  # said, for the client would take OPENAI_BASE_URL for an endpoint that names none
_AGAIN = (408, 409, 425)  # statuses below 500 that tell of the moment, and not of the request
_OF_SCHEMA = re.compile(r"response_format|json_schema|text\.format|structured.output", re.IGNORECASE)
_CLIENT = ("openai", "openai.resources.chat.completions", "openai.resources.responses")


@asynccontextmanager
async def telling(name: str) -> AsyncIterator[None]:
    """Turn what the client raises into errors that say whether another try may help."""
    for module in _CLIENT:  # they take seconds to load, and each other execution would wait for it
        if module not in sys.modules:
            await asyncio.to_thread(import_module, module)
    import openai

    try:
        yield
    except openai.RateLimitError as error:
        raise RateLimited(f"agent {name!r}: {error.message}", _waits(error)) from error
    except (openai.APIConnectionError, openai.InternalServerError) as error:
        raise Unavailable(f"agent {name!r}: {error.message}", _waits(error)) from error
    except openai.APIStatusError as error:
        raise _of_status(name, error) from error
    except openai.APIError as error:  # told within a stream
        raise Unavailable(f"agent {name!r}: {error.message}") from error
    except (openai.OpenAIError, UnicodeEncodeError) as error:  # headers are ASCII, and so are keys
        raise Refused(f"agent {name!r}: {error}") from error
    except (ValueError, AttributeError, TypeError, LookupError, RecursionError) as error:  # it reads what there is
        raise InvalidReply(f"agent {name!r}: the endpoint's answer cannot be read: {error}") from error


def _of_status(name: str, error: "APIStatusError") -> PerdureError:
    told = f"agent {name!r}: {error}"
    if error.status_code in _AGAIN:
        return Unavailable(told, _waits(error))
    of_schema = error.status_code in (400, 422, 501) and _OF_SCHEMA.search(told) is not None
    return Refused(told, of_schema=of_schema)


def _waits(error: "APIError") -> float | None:
    response = getattr(error, "response", None)  # a connection that failed has none
    return None if response is None else retry_after.seconds_in(response.headers, datetime.now(UTC))


_clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str | None, str | None], Any]] = WeakKeyDictionary()


def client_of(endpoint: Endpoint) -> "AsyncOpenAI":
    """Return the client of an endpoint: one for each event loop, for its connections belong to the loop."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    about = endpoint.base_url, endpoint.api_key
    if about not in clients:
        from openai import AsyncOpenAI

        base_url, key = endpoint.base_url or _OPENAI, endpoint.api_key or "none"
        clients[about] = AsyncOpenAI(base_url=base_url, api_key=key, max_retries=0)
    client: AsyncOpenAI = clients[about]
    return client

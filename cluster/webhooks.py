"""Webhooks as they are declared: in the registry, so that they live as long as the log whose events they tell."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import httpx2
import msgspec

from perdure.cluster.connection import Connection
from perdure.cluster.registry import Changed, Registry
from perdure.cluster.settings import Settings
from perdure.cluster.subscriptions import From, first_place
from perdure.cluster.users import user_of
from perdure.errors import BadInput
from perdure.events.choice import choice_of
from perdure.events.subjects import execution_of, token_of
from perdure.projections import webhooks
from perdure.projections.webhooks import Webhook, deliveries

if TYPE_CHECKING:
    from sqlalchemy import Connection as Sql

    from perdure.projections.store import Store

_GROUP = "webhooks"
Result = TypeVar("Result")


class AsyncWebhooks:
    """The webhooks of a store."""

    def __init__(self, connection: Connection, store: "Store", settings: Settings) -> None:
        self._connection = connection
        self._store = store
        self._settings = settings

    async def add(
        self,
        name: str,
        url: str,
        *,
        secret: str,
        types: Any = (),
        workflow: Any = (),
        execution: str | None = None,
        from_: From = "now",
        attempts: int = 8,
        timeout: float = 10.0,
    ) -> Webhook:
        """Declare a webhook: the events chosen, from a position on, are posted to a URL, signed by a secret.

        secret: its name; the runner reads its value, from PERDURE_SECRET_<NAME> or the folder of secrets. attempts: all
        tries of one delivery. timeout: seconds of one. Raises BadInput.
        """
        _check_address(name, url)
        if not name or attempts < 1 or not 0 < timeout <= 600:
            raise BadInput("a webhook has a name, at least 1 attempt, and a timeout of at most 600 seconds")
        if not secret.isidentifier():
            raise BadInput(f"webhook {name!r}: {secret!r} is not the name of a secret; give its name, not its value")
        place = await first_place(self._connection.log, from_)
        webhook = Webhook(
            name=name, url=url, secret=secret, choice=choice_of(types, workflow, execution), since=place.position - 1,
            attempts=attempts, timeout=timeout, by=user_of(self._settings), made=datetime.now(UTC),
        )  # fmt: skip
        registry = self._connection.registry
        data, revision = await registry.read(_key(name))
        if data is None:
            with contextlib.suppress(Changed):  # somebody was faster, which is said below
                await registry.swap(_key(name), msgspec.json.encode(webhook), revision)
                return webhook
        raise BadInput(f"there is a webhook {name!r} already; remove it first: perdure webhooks remove {name}")

    async def list(self) -> list[dict[str, Any]]:
        """Return all webhooks: name, url, events, and how many deliveries are pending and dead."""
        counts = await self._ask(webhooks.counts)
        return [
            {"name": each.name, "url": each.url, "types": [*each.choice.types], "workflows": [*each.choice.workflows],
             "secret": each.secret, "since": each.since, "by": each.by,
             "pending": counts.get(each.name, {}).get("pending", 0), "dead": counts.get(each.name, {}).get("dead", 0)}
            for each in await declared(self._connection.registry)
        ]  # fmt: skip

    async def remove(self, name: str) -> None:
        """Forget a webhook, with what it has not told yet. Raises BadInput where there is none of this name."""
        await self._known(name)
        await self._connection.registry.forget(_key(name))
        await self._ask(partial(webhooks.forget, webhook=name))

    async def dead(self, name: str | None = None) -> Sequence[dict[str, Any]]:
        """Return the deliveries that failed at their last attempt, of one webhook or of all."""
        return await self._ask(partial(webhooks.dead, webhook=name))

    async def retry(self, name: str) -> int:
        """Have the dead deliveries of a webhook tried again; return how many. Raises BadInput."""
        await self._known(name)
        return await self._ask(partial(webhooks.try_again, webhook=name, now=datetime.now(UTC)))

    async def run(self) -> None:
        """Tell all webhooks from this process, until cancelled, as the projection runner of a cluster does."""
        from perdure.cluster.telling import keep_telling

        await keep_telling(self._connection, self._settings)

    async def _known(self, name: str) -> None:
        if (await self._connection.registry.read(_key(name)))[0] is None:
            raise BadInput(f"there is no webhook {name!r}; perdure webhooks list shows those that there are")

    async def _ask(self, question: "Callable[[Sql], Result]") -> Result:
        def ask() -> Result:
            self._store.migrate()
            with self._store.writing() as connection:
                deliveries.create(connection, checkfirst=True)
                return question(connection)

        return await asyncio.to_thread(ask)


def _check_address(name: str, url: str) -> None:
    try:
        parsed = httpx2.URL(url)
        fits = parsed.scheme in ("http", "https") and parsed.host and not parsed.userinfo
    except (httpx2.InvalidURL, ValueError):
        fits = False
    if not fits:
        raise BadInput(f"webhook {name!r}: {url!r} is no address to post to; it is https://host/path, without a user")


async def declared(registry: Registry) -> list[Webhook]:
    """Return all webhooks, by name."""
    found = []
    for name in sorted(execution_of(each) for each in await registry.keys_under(_GROUP)):
        data, _ = await registry.read(_key(name))
        found += [msgspec.json.decode(data, type=Webhook)] if data else []
    return found


async def settled(registry: Registry, name: str, position: int) -> None:
    """Note up to where a webhook has nothing left to tell: should the read models be lost, it tells nothing twice."""
    data, revision = await registry.read(_key(name))
    if data is None:
        return
    webhook = msgspec.json.decode(data, type=Webhook)
    if position > webhook.settled:
        try:
            changed = msgspec.structs.replace(webhook, settled=position)
            await registry.swap(_key(name), msgspec.json.encode(changed), revision)
        except Changed:
            return  # another one notes it


def _key(name: str) -> str:
    return f"{_GROUP}.{token_of(name)}"

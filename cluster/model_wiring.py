"""The models as settings name them: endpoints, keys by secrets, prices, files by reference, and what is remembered."""

import base64
from collections.abc import Mapping
from functools import partial
from typing import Any

from perdure.actors.models import Models
from perdure.actors.secret_values import Secrets
from perdure.cluster.connection import Connection
from perdure.cluster.files import Files
from perdure.cluster.settings import Settings
from perdure.events.sessions import JetStreamSessions


def models_of(connection: Connection, settings: Settings, secrets: Secrets) -> Models:
    """Return what agents ask under these settings; the keys are redacted from now on."""
    if settings.openai_api_key is not None:
        secrets.hide(settings.openai_api_key.get_secret_value(), "OPENAI_API_KEY")
    return Models(
        default=settings.endpoint,
        named=settings.endpoints,
        prices=settings.prices,
        key=secrets.value_of,
        file=partial(_url_of, Files(connection.nats, settings.replicas)),
        sessions=JetStreamSessions(connection.nats, settings.log_timeout, settings.replicas),
        most=settings.reply_bytes,
        redact=secrets.redact,
    )


async def _url_of(files: Files, given: Mapping[str, Any]) -> str:
    """Return a file's own URL, or the data URL of one that was uploaded."""
    if "url" in given:
        return str(given["url"])
    data = await files.get(str(given.get("file", "")))
    return f"data:{given.get('media_type', 'application/octet-stream')};base64,{base64.b64encode(data).decode()}"

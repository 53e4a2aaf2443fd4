"""The tool `email` against a real SMTP server: encryption, login, what the mail says, and what is refused."""

import asyncio
import contextlib
import email
import email.policy
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from certificates import certificate

from perdure.actors.context import Context
from perdure.actors.email_tool import EmailRefused
from perdure.actors.models import Unavailable
from perdure.actors.outside import Outside, Reach, Smtp
from perdure.actors.secret_values import Secrets
from perdure.actors.tools import call_async, find
from perdure.definitions.builtin_tools import BUILTINS
from perdure.errors import BadInput, EnvironmentProblem

EMAIL = BUILTINS["email"].place
MAIL = {"to": "ann@example.org", "subject": "Hello", "text": "Grüße"}


class Inbox:
    """Takes mail, but not for `nobody@` and not for `later@`."""

    def __init__(self) -> None:
        self.got: list[Envelope] = []

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if address.startswith("nobody@"):
            return "550 no such person"
        if address.startswith("later@"):
            return "451 come again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        self.got.append(envelope)
        return "250 OK"


def login(_server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"perdure", b"pass word")
    return AuthResult(success=good, handled=good)


@asynccontextmanager
async def mail_server(tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[tuple[Inbox, dict[str, Any]]]:
    """Give the inbox of a server and the settings that reach it."""
    inbox, loop = Inbox(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(inbox, loop=loop, **options), "127.0.0.1", 0, ssl=tls)
    async with server:
        yield inbox, {"host": "localhost", "port": server.sockets[0].getsockname()[1], "sender": "a@b.org"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Inbox, dict[str, Any]]]:
    """A server that asks for STARTTLS and a login, and the settings that reach it."""
    trusted, tls = certificate(tmp_path, "localhost")
    options: dict[str, Any] = {
        "tls_context": tls,
        "require_starttls": True,
        "auth_required": True,
        "authenticator": login,
    }
    async with mail_server(**options) as (inbox, smtp):
        yield inbox, smtp | {
            "sender": "Shop <shop@example.org>", "user": "perdure", "password": "${{ secrets.SMTP }}",
            "ca_file": str(trusted),
        }  # fmt: skip


async def send(smtp: dict[str, Any] | None, password: str = "pass word", **mail: Any) -> Any:
    reach = Reach(smtp=None if smtp is None else Smtp(**smtp))
    outside = Outside(reach, Secrets({"SMTP": password}.__getitem__))
    return await call_async(find(EMAIL), MAIL | mail, Context("x", "n", 1, "x/n", outside=outside))


async def test_a_mail_arrives_over_tls_with_all_that_it_says(server: tuple[Inbox, dict[str, Any]]) -> None:
    inbox, smtp = server
    reply = await send(
        smtp, to=["Ann <ann@example.org>"], cc=["bob@example.org"], bcc=["cy@example.org"], html="<p>Grüße</p>",
        reply_to="desk@example.org",
    )  # fmt: skip
    envelope = inbox.got[-1]
    assert isinstance(envelope.content, bytes)
    mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert envelope.rcpt_tos == ["ann@example.org", "bob@example.org", "cy@example.org"]
    assert (mail["From"], mail["To"], mail["Cc"]) == (
        "Shop <shop@example.org>",
        "Ann <ann@example.org>",
        "bob@example.org",
    )
    assert (mail["Subject"], mail["Reply-To"], mail["Bcc"]) == ("Hello", "desk@example.org", None)
    assert [part.get_content().strip() for part in mail.iter_parts()] == ["Grüße", "<p>Grüße</p>"]
    assert mail["Message-ID"] == reply["message_id"]
    assert abs(mail["Date"].datetime - datetime.now(UTC)) < timedelta(minutes=1)
    assert reply["refused"] == {}


async def test_every_attempt_has_the_same_message_id(server: tuple[Inbox, dict[str, Any]]) -> None:
    first, second = [await send(server[1]) for _ in range(2)]
    assert first["message_id"] == second["message_id"]


async def test_some_who_are_refused_are_told_and_all_are_an_error(server: tuple[Inbox, dict[str, Any]]) -> None:
    reply = await send(server[1], to=["ann@example.org", "nobody@example.org"])
    assert reply["refused"] == {"nobody@example.org": "550 no such person"}
    with pytest.raises(EmailRefused, match="550 no such person"):
        await send(server[1], to="nobody@example.org")
    with pytest.raises(Unavailable, match="451 come again later"):
        await send(server[1], to="later@example.org")


async def test_a_wrong_password_is_refused_and_not_told(server: tuple[Inbox, dict[str, Any]]) -> None:
    with pytest.raises(EmailRefused, match="535") as caught:
        await send(server[1], password="wrong password")
    assert "wrong password" not in str(caught.value)


async def test_a_server_of_another_name_is_not_trusted(server: tuple[Inbox, dict[str, Any]]) -> None:
    sent = len(server[0].got)
    with pytest.raises(EnvironmentProblem, match="CERTIFICATE_VERIFY_FAILED"):
        await send(server[1] | {"host": "127.0.0.1"})
    assert len(server[0].got) == sent


async def test_a_server_without_encryption_gets_nothing_unless_it_is_set_so() -> None:
    async with mail_server() as (inbox, smtp):
        with pytest.raises(EnvironmentProblem, match="STARTTLS"):
            await send(smtp)
        assert inbox.got == []
        await send(smtp | {"tls": "none"})
        assert len(inbox.got) == 1


async def test_implicit_tls_is_spoken_where_it_is_set(tmp_path: Path) -> None:
    trusted, tls = certificate(tmp_path, "localhost")
    async with mail_server(tls) as (inbox, smtp):
        await send(smtp | {"tls": "implicit", "ca_file": str(trusted)})
        assert len(inbox.got) == 1


async def test_a_server_that_never_comes_to_an_end_is_given_up() -> None:
    async def drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            for _ in range(10):
                writer.write(b"220-wait\r\n")
                await asyncio.sleep(0.05)
        writer.close()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        smtp = {"host": "127.0.0.1", "port": server.sockets[0].getsockname()[1], "sender": "a@b.org", "tls": "none"}
        with pytest.raises(Unavailable, match=r"was not done within 0\.2 s"):
            await send(smtp, timeout=0.2)


async def test_a_file_of_certificates_that_is_not_there_is_named() -> None:
    with pytest.raises(
        EnvironmentProblem, match=r"'ca_file' of the setting `smtp`, /none\.pem, cannot be used: No such"
    ):
        await send({"host": "localhost", "sender": "a@b.org", "ca_file": "/none.pem"})


async def test_a_server_that_is_not_there_may_come_back() -> None:
    async with mail_server() as (_, smtp):
        pass
    with pytest.raises(Unavailable, match="cannot be reached"):
        await send(smtp)


@pytest.mark.parametrize(
    ("mail", "said"),
    [
        ({"to": "ann"}, "'ann' is no mail address"),
        ({"to": "ann@example.org\nBcc: all@example.org"}, "is no mail address"),
        ({"subject": "Hello\nBcc: all@example.org"}, "the mail cannot be written"),
        ({"to": []}, "to: List should have at least 1 item"),
        ({"cc": ["x@y.org, z@y.org"]}, "is no mail address"),
    ],
)
async def test_what_is_no_mail_is_named_and_no_header_is_smuggled_in(
    server: tuple[Inbox, dict[str, Any]], mail: dict[str, Any], said: str
) -> None:
    sent = len(server[0].got)
    with pytest.raises(BadInput) as caught:
        await send(server[1], **mail)
    assert said in str(caught.value)
    assert len(server[0].got) == sent


async def test_without_a_server_in_the_settings_it_says_what_to_set() -> None:
    with pytest.raises(EnvironmentProblem, match="PERDURE_SMTP"):
        await send(None)

"""The tool `email`: one mail by the SMTP server of the settings, encrypted unless that says otherwise."""

import asyncio
import hashlib
import smtplib
import ssl
from datetime import UTC, datetime
from email.headerregistry import Address, HeaderRegistry
from email.message import EmailMessage
from typing import Any

from perdure.actors.context import Context
from perdure.actors.models import Unavailable
from perdure.actors.outside import Outside, Smtp
from perdure.definitions.builtin_tools import EmailCall, EmailReply
from perdure.errors import BadInput, EnvironmentProblem, PerdureError

_HEADERS = HeaderRegistry()


class EmailRefused(PerdureError):
    """The mail server refuses a mail for good."""


async def email(call: EmailCall, context: Context) -> EmailReply:
    """Send a mail; its Message-ID is the same for every attempt, so that a second copy can be told.

    Raises BadInput, EmailRefused, Unavailable where the server may take it later, or EnvironmentProblem.
    """
    smtp = context.outside.reach.smtp
    if smtp is None:
        raise EnvironmentProblem("no mail server is set: set PERDURE_SMTP where the workflow runs")
    mail = _mail(call, smtp, context)
    tls = _tls(smtp)
    try:
        async with asyncio.timeout(call.timeout):
            return await asyncio.to_thread(_sent, mail, call, smtp, tls, context.outside)
    except TimeoutError:
        raise Unavailable(f"mail server {smtp.host} was not done within {call.timeout:g} s") from None
    except smtplib.SMTPRecipientsRefused as error:
        _raise(smtp, *next(iter(error.recipients.values())))
    except smtplib.SMTPResponseException as error:
        _raise(smtp, error.smtp_code, error.smtp_error)
    except (OSError, smtplib.SMTPException) as error:  # a broken connection, TLS, or a server that does not know it
        if isinstance(error, ssl.SSLError | smtplib.SMTPNotSupportedError):
            raise EnvironmentProblem(f"mail server {smtp.host}: {error}") from error
        raise Unavailable(f"mail server {smtp.host} cannot be reached: {error}") from error
    raise AssertionError("every other way out raises")


def _mail(call: EmailCall, smtp: Smtp, context: Context) -> EmailMessage:
    mail = EmailMessage()
    sender = _address(smtp.sender)
    try:
        mail["From"] = sender
        for header, given in (("To", call.to), ("Cc", call.cc), ("Reply-To", [call.reply_to] if call.reply_to else [])):
            if given:
                mail[header] = [_address(each) for each in given]
        mail["Subject"] = call.subject
        mail["Date"] = datetime.now(UTC)
    except ValueError as error:
        raise BadInput(f"the mail cannot be written: {error}") from None
    key = hashlib.sha256(context.idempotency_key.encode()).hexdigest()[:32]
    mail["Message-ID"] = f"<{key}@{sender.domain}>"
    mail.set_content(call.text)
    if call.html is not None:
        mail.add_alternative(call.html, subtype="html")
    return mail


def _address(given: str) -> Address:
    header: Any = None if "\n" in given or "\r" in given else _HEADERS("to", given)
    found: tuple[Address, ...] = header.addresses if header is not None and not header.defects else ()
    if len(found) != 1 or not found[0].username or not found[0].domain:
        raise BadInput(f"{given!r} is no mail address; write name@example.org or Name <name@example.org>")
    return Address(found[0].display_name, found[0].username, found[0].domain)


def _tls(smtp: Smtp) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=smtp.ca_file)
    except OSError as error:
        raise EnvironmentProblem(
            f"the 'ca_file' of the setting `smtp`, {smtp.ca_file}, cannot be used: {error.strerror}"
        ) from None


def _sent(mail: EmailMessage, call: EmailCall, smtp: Smtp, tls: ssl.SSLContext, outside: Outside) -> EmailReply:
    """Send a mail, in a thread."""
    timeout = call.timeout
    server = (
        smtplib.SMTP_SSL(smtp.host, smtp.port, timeout=timeout, context=tls)
        if smtp.tls == "implicit"
        else smtplib.SMTP(smtp.host, smtp.port, timeout=timeout)
    )
    with server:
        if smtp.tls == "starttls":
            server.starttls(context=tls)
        if smtp.user is not None:
            server.login(smtp.user, outside.reveal(smtp.password or ""))
        everybody = [_address(each).addr_spec for each in (*call.to, *call.cc, *call.bcc)]
        refused = server.send_message(mail, from_addr=_address(smtp.sender).addr_spec, to_addrs=everybody)
    told = {to: f"{code} {_text(why)}" for to, (code, why) in refused.items()}
    return EmailReply(message_id=str(mail["Message-ID"]), refused=told)


def _raise(smtp: Smtp, code: int, why: bytes | str) -> None:
    what = f"mail server {smtp.host} answered {code} {_text(why)}"
    raise Unavailable(what) if 400 <= code < 500 else EmailRefused(what)


def _text(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said

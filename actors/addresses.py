"""Which addresses a request may go to: public ones, and those that the operator allows, whatever a name resolves to."""

import asyncio
import ipaddress
import socket
from collections.abc import Iterable

from perdure.errors import PerdureError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
"""All that is of the public internet in IPv6. What is outside is local, or leads somewhere else by translation."""
_NOT_PUBLIC = tuple(map(ipaddress.ip_network, ("192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
"""What older Pythons take for public."""


class AddressRefused(PerdureError):
    """A request would go to a private address, which the setting `http_allow` does not name."""


def check_allowed(allowed: Iterable[str]) -> None:
    """Raise ValueError for what is neither a network, such as `10.0.0.0/8`, nor a host's name."""
    for each in allowed:
        try:
            ipaddress.ip_network(each)
        except ValueError:
            if not each or any(sign in each for sign in "/*: "):
                raise ValueError(
                    f"{each!r} is neither a network (10.0.0.0/8), an address, nor the name of a host"
                ) from None


def is_public(address: Address) -> bool:
    """Say whether an address is of the public internet; one that carries another inside is as public as that."""
    return all(_is_public(each) for each in _meant(address))


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or any(_within(address, each) for each in _NOT_PUBLIC):
        return False
    return address.version == 4 or address in _GIVEN_OUT


def _within(address: Address, network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    return address.version == network.version and address in network


async def resolved(host: str, port: int, allowed: Iterable[str]) -> list[str]:
    """Return the addresses of a host that a request may go to: connect to these, for the name may change its mind.

    Raises AddressRefused where any of them may not be asked, and OSError where the name means nothing.
    """
    names = [each.lower().rstrip(".") for each in allowed]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(each[4][0]) for each in found))
    if host.lower().rstrip(".") in names:
        return addresses
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        if not is_public(address) and not _is_among(address, names):
            raise AddressRefused(
                f"{host} is {text}, which is no public address, and no request goes there; whoever runs perdure may "
                f"allow it by the setting http_allow (PERDURE_HTTP_ALLOW={host})"
            )
    return addresses


def _is_among(address: Address, allowed: list[str]) -> bool:
    for each in allowed:
        try:
            network = ipaddress.ip_network(each)
        except ValueError:
            continue  # the name of a host
        if _within(address, network):
            return True
    return False


def _meant(address: Address) -> list[Address]:
    """Return an address with those that it stands for: mapped, tunnelled and translated IPv4 ones."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    if address.ipv4_mapped is not None:
        return [address.ipv4_mapped]
    inner = [address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]
    return [address, *(each for each in inner if each is not None)]

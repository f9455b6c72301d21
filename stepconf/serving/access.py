"""Who may ask `stepconf serve`: where it listens, under which names it answers, and with which key."""

import hmac
import os
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from stepconf.errors import StepconfError
from stepconf.recipe import ServeRecipe

_HOST = re.compile(r"(?:\[(?P<v6>[0-9a-f:.]+)\]|(?P<name>[^:\[\]]+?)\.?)(?::\d*)?")


class Access:
    """Decides by a request's headers whether it is answered.

    Args:
        address: the IP address that the server is bound to.
        names: host names that lead to it.
        key: what clients must send as bearer token; None asks for none.
    """

    def __init__(self, address: str, names: Sequence[str] = (), key: str | None = None) -> None:
        self.is_local = _is_loopback(ip_address(address))
        self._names = {"localhost", *(name.lower() for name in names)}
        self._key = None if key is None else os.fsencode(key)

    def knows_host(self, header: str) -> bool:
        """Whether a Host header names this server.

        A page whose own name was made to lead here (DNS rebinding) sends that name. An address is nobody's name,
        so any will do, but on a server of this machine alone only a loopback one leads here.
        """
        found = _HOST.fullmatch(header.strip().lower())
        host = (found["v6"] or found["name"]) if found else ""
        if host in self._names:
            return True
        try:
            address = ip_address(host)
        except ValueError:
            return False
        return not self.is_local or _is_loopback(address)

    def has_key(self, authorization: str) -> bool:
        """Whether an Authorization header (as Latin-1) is `Bearer` and the key; compared in constant time."""
        if self._key is None:
            return True
        scheme, _, sent = authorization.partition(" ")
        right = hmac.compare_digest(sent.strip().encode("latin-1", "replace"), self._key)
        return right and scheme.lower() == "bearer"


def access_of(serve: ServeRecipe, address: str, key: str | None) -> Access:
    """The access to a server that is bound to an IP address.

    Raises:
        StepconfError: other machines reach it, it has no key, and `serve.insecure` does not say that this is meant.
    """
    access = Access(address, [serve.host, *serve.names], key)
    if key is None and not access.is_local and not serve.insecure:
        raise StepconfError(
            f"other machines would reach {serve.host}, and no key is asked of them.",
            "Type: export STEPCONF_KEY=... and add --set serve.api_key_env=STEPCONF_KEY; or add --insecure to "
            "answer everybody.",
        )
    return access


def read_key(variable: str | None) -> str | None:
    """The key, from the environment variable of this name.

    Raises:
        StepconfError: the variable is not set, or empty.
    """
    if variable is None:
        return None
    if not (key := os.environ.get(variable)):
        raise StepconfError(
            f"serve.api_key_env names {variable}, which is not set.", f"Type: export {variable}=..."
        )
    return key


def _is_loopback(address: IPv4Address | IPv6Address) -> bool:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback

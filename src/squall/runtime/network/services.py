"""Resolvers and proxies of the machine, as containers must see them.

What listens on the machine itself (127.0.0.1, or one of its own addresses) is out of a container's reach, and 127.0.0.1
means something else inside. Each such address gets a stand-in in the instance's subnet, the first one the gateway
itself, and only the named ports of it are let through. Resolvers and proxies elsewhere stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import urlsplit, urlunsplit

from squall.runtime.network.subnet import Subnet

PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy")
DEFAULT_PORTS = {"http": 80, "https": 443, "socks4": 1080, "socks5": 1080, "socks5h": 1080}
DNS_PORT = 53


@dataclass(frozen=True, slots=True, order=True)
class Redirect:
    """Connections of containers to `address:port` end at `target:port` of the machine."""

    address: str
    target: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Services:
    """What slots say to containers, and the redirects that make it true."""

    resolv_conf: str
    env: Mapping[str, str]
    redirects: tuple[Redirect, ...]
    resolvers: tuple[str, ...]
    """Resolvers outside of the machine."""
    findings: tuple[str, ...] = field(default=())
    """What could not be made to work, each with the way out."""


class _StandIns:
    """Hands out addresses of the subnet for addresses of the machine."""

    def __init__(self, subnet: Subnet, own: Iterable[str]) -> None:
        self._subnet = subnet
        self._own = frozenset(own)
        self._targets: dict[str, str] = {}
        self.redirects: list[Redirect] = []

    def is_local(self, address: IPv4Address) -> bool:
        return address.is_loopback or address.is_unspecified or str(address) in self._own

    def add(self, address: IPv4Address, protocols: Iterable[str], port: int) -> str:
        target = "127.0.0.1" if address.is_unspecified else str(address)
        stand_in = self._targets.setdefault(target, self._subnet.service(len(self._targets)))
        for protocol in protocols:
            redirect = Redirect(stand_in, target, protocol, port)
            if redirect not in self.redirects:
                self.redirects.append(redirect)
        return stand_in


def _as_ipv4(text: str) -> IPv4Address | None:
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def find_resolvers(resolv_conf: str) -> list[str]:
    """IPv4 addresses of the resolvers named in a resolv.conf."""
    lines = (line.split() for line in resolv_conf.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver" and _as_ipv4(words[1])]


def _rewrite_resolv_conf(text: str, stand_ins: _StandIns, findings: list[str]) -> tuple[str, list[str]]:
    lines, resolvers = [], []
    for line in text.splitlines():
        words = line.split()
        if not words or words[0] != "nameserver" or len(words) < 2:
            # Comments tell people to edit a file that is not there inside.
            if words and not words[0].startswith(("#", ";")):
                lines.append(line.strip())
            continue
        address = _as_ipv4(words[1])
        if address is None:
            findings.append(f"resolver {words[1]} is left out of containers: they have no IPv6; name an IPv4 resolver")
        elif stand_ins.is_local(address):
            lines.append(f"nameserver {stand_ins.add(address, ('udp', 'tcp'), DNS_PORT)}")
        else:
            lines.append(f"nameserver {address}")
            resolvers.append(str(address))
    if not any(line.startswith("nameserver") for line in lines):
        findings.append("containers have no resolver: /etc/resolv.conf names none that IPv4 reaches; add one")
    return "".join(f"{line}\n" for line in lines), resolvers


def _rewrite_proxy(value: str, hostname: str, stand_ins: _StandIns) -> str | None:
    """The proxy as containers reach it; None when they cannot."""
    has_scheme = "://" in value
    parts = urlsplit(value if has_scheme else f"http://{value}")
    host = parts.hostname or ""
    if host == "::1":
        return None
    address = IPv4Address("127.0.0.1") if host in ("localhost", hostname) else _as_ipv4(host)
    if address is None or not stand_ins.is_local(address):
        return value
    port = parts.port or DEFAULT_PORTS.get(parts.scheme, 80)
    stand_in = stand_ins.add(address, ("tcp",), port)
    user, at, _ = parts.netloc.rpartition("@")
    rewritten = urlunsplit(parts._replace(netloc=f"{user}{at}{stand_in}:{port}"))
    return rewritten if has_scheme else rewritten.removeprefix("http://")


def plan_services(
    subnet: Subnet,
    *,
    resolv_conf: str,
    proxy_env: Mapping[str, str],
    own_addresses: Iterable[str],
    hostname: str = "localhost",
) -> Services:
    """Rewrite resolvers and proxy variables for the inside, and list the redirects they need."""
    stand_ins = _StandIns(subnet, own_addresses)
    findings: list[str] = []
    text, resolvers = _rewrite_resolv_conf(resolv_conf, stand_ins, findings)
    env: dict[str, str] = {}
    for name, value in proxy_env.items():
        if name.lower() == "no_proxy":
            env[name] = value
        elif name.lower() in PROXY_VARIABLES and value:
            rewritten = _rewrite_proxy(value, hostname, stand_ins)
            if rewritten is None:
                findings.append(
                    f"{name}={value} is left out of containers: they have no IPv6; let the proxy listen on IPv4"
                )
            else:
                env[name] = rewritten
    return Services(text, env, tuple(stand_ins.redirects), tuple(resolvers), tuple(findings))

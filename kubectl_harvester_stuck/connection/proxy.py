"""Which proxy a request to a server goes through, by the rules of kubectl.

`proxy-url` in the kubeconfig is used whatever NO_PROXY says. Otherwise HTTPS_PROXY or HTTP_PROXY
count, by the scheme of the server, unless NO_PROXY names the server; localhost and loopback
addresses are never proxied then.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from kubectl_harvester_stuck.errors import KubeconfigError

_SCHEMES = ("http", "https", "socks5", "socks5h")
_PORTS = {"http": 80, "https": 443}


def proxy_for(server: str, proxy_url: str, environ: Mapping[str, str]) -> str | None:
    """The URL of the proxy for `server`, a URL; None for none.

    `proxy_url` is that of the kubeconfig, empty for none. Raises KubeconfigError if the proxy
    cannot be used.
    """
    if proxy_url:
        return _checked(proxy_url, "proxy-url")
    target = urlsplit(server)
    name = f"{target.scheme.upper()}_PROXY"
    # Inside a CGI program HTTP_PROXY is a request header, and so from outside.
    if name == "HTTP_PROXY" and "REQUEST_METHOD" in environ:
        return None
    proxy = environ.get(name) or environ.get(name.lower())
    no_proxy = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if not proxy or _is_direct(target, no_proxy):
        return None
    if "://" not in proxy:
        proxy = f"http://{proxy}"
    return _checked(proxy, name)


def _checked(proxy: str, source: str) -> str:
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme in _SCHEMES and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        # Not quoted: it may contain a password.
        raise KubeconfigError(
            f"{source} is not the URL of a proxy: it must be http, https or socks5 and name a host"
        )
    return proxy


def _is_direct(target: SplitResult, no_proxy: str) -> bool:
    host = (target.hostname or "").lower()
    port = target.port or _PORTS[target.scheme]
    address = _address(host)
    if host == "localhost" or (address and address.is_loopback):
        return True
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    return any(_matches(entry, host, address, port) for entry in entries if entry)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def _matches(
    entry: str,
    host: str,
    address: ipaddress.IPv4Address | ipaddress.IPv6Address | None,
    port: int,
) -> bool:
    """Whether one entry of NO_PROXY (`*`, CIDR, address, domain; with or without port) matches."""
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and _holds(entry, address)
    name, only_port = _split_port(entry)
    if only_port not in ("", str(port)):
        return False
    if address or _address(name):
        return address == _address(name)
    # `.example.com` and `*.example.com` are the subdomains, `example.com` is itself as well.
    suffix = name[1:] if name.startswith("*.") else name
    ending = suffix if suffix.startswith(".") else f".{suffix}"
    return bool(name) and (host == suffix or host.endswith(ending))


def _holds(network: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, str]:
    if entry.startswith("["):
        name, _, port = entry[1:].partition("]")
        return name, port.removeprefix(":")
    if _address(entry):
        return entry, ""
    name, _, port = entry.partition(":")
    return name, port

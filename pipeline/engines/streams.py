"""HTTP replies as they stream in: bounded, and line by line; and which hosts are this machine."""

import ipaddress
from collections.abc import Iterator
from time import monotonic

import httpx

BROKEN = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
"""A connection that was there and broke, which may be tried again."""
_LARGEST_REPLY = 256 << 20


def bounded(response: httpx.Response, seconds: float) -> Iterator[bytes]:
    """The body, bounded in time and size: a server may dribble for ever."""
    deadline, size = monotonic() + seconds, 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if monotonic() > deadline or size > _LARGEST_REPLY:
            raise httpx.ReadTimeout("the reply does not end", request=response.request)
        yield chunk


def lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """What stands between line feeds; httpx would also cut at U+2028, which JSON may hold."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from filter(None, whole)
    if rest.strip():
        yield rest


def is_loopback(host: str) -> bool:
    """True for this machine; a server that listens everywhere (0.0.0.0) is asked here too."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return address.is_loopback or address.is_unspecified

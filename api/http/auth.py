"""Access control: API keys, requests from this machine, no requests from other web sites."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from urllib.parse import urlsplit

from flask import current_app, g, request

from api.http.problems import KEY_COOKIE
from shared.errors import Forbidden, InvalidRequest, Unauthorized
from shared.settings import Settings


def read_api_keys(config: Settings) -> tuple[str, ...]:
    """Read the SHA-256 hashes of the API keys; Unauthorized without keys on an address beyond this machine."""
    keys = tuple(key.strip().lower() for key in config.api_keys.split(",") if key.strip())
    if any(not re.fullmatch(r"[0-9a-f]{64}", key) for key in keys):
        raise InvalidRequest("SCENEWORKS_API_KEYS must be SHA-256 hashes (64 hex digits), comma separated.")
    if not keys and not _is_loopback(config.host):
        raise Unauthorized(
            f"The API would listen on {config.host}, beyond this machine, without keys: set SCENEWORKS_API_KEYS to the "
            "SHA-256 of each key (printf %s KEY | sha256sum), or SCENEWORKS_HOST to 127.0.0.1."
        )
    return keys


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_access(keys: tuple[str, ...]) -> None:
    """Check the key of a request; Unauthorized, or Forbidden for one that another web site made a browser send."""
    if request.method not in {"GET", "HEAD", "OPTIONS"}:
        _refuse_other_sites()
    if not keys:
        _refuse_other_machines()
        g.key = ""
        return
    view = current_app.view_functions.get(request.endpoint or "")
    g.key = _find_known_key(keys)
    if not g.key and not getattr(view, "allow_anonymous", False):
        raise Unauthorized("Send a valid key: Authorization: Bearer KEY.")


def _find_known_key(keys: tuple[str, ...]) -> str:
    """Find the hash of the key that was sent among those of the settings; empty when it is none of them."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    presented_key = token.strip() if scheme.lower() == "bearer" else request.cookies.get(KEY_COOKIE, "")
    digest = hashlib.sha256(presented_key.encode("utf-8", "surrogateescape")).hexdigest()
    # Every key is compared, each in constant time: the time of an answer says nothing about the keys.
    matches = [hmac.compare_digest(digest, key) for key in keys]
    return digest if presented_key and any(matches) else ""


def _refuse_other_sites() -> None:
    origin = request.headers.get("Origin")
    foreign = origin is not None and urlsplit(origin).netloc != request.host
    if foreign or request.headers.get("Sec-Fetch-Site", "none") not in {"none", "same-origin"}:
        raise Forbidden("Another web site may not send this request.")


def _refuse_other_machines() -> None:
    """Forbidden unless the request comes from this machine and was sent to a loopback name."""
    # The name is checked too: a web page may let its own host name resolve to 127.0.0.1 (DNS rebinding).
    peer, name = request.remote_addr or "", urlsplit(f"//{request.host}").hostname or ""
    if (peer and not _is_loopback(peer)) or not _is_loopback(name):
        raise Forbidden("Without API keys this service answers to its own machine only.")

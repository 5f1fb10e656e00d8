"""Directories: the identity providers' own records, asked over HTTP. `build` makes the one of a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.directories.base import Directory
from relay.directories.entra import EntraDirectory
from relay.directories.okta import OktaDirectory

#: Makes a directory of (name, the source in relay.yaml, what gives its credential).
Maker = Callable[[str, Mapping[str, Any], Callable[[], str]], Directory]

TYPES: Mapping[str, tuple[str, Maker]] = {"okta": ("api", OktaDirectory), "entra": ("graph", EntraDirectory)}


def has_one(given: Mapping[str, Any]) -> bool:
    """Whether relay.yaml gives this source the credentials of a directory."""
    return given["type"] in TYPES and TYPES[given["type"]][0] in given


def build(name: str, given: Mapping[str, Any], credential: Callable[[], str]) -> Directory | None:
    """The directory of a source, None where relay.yaml gives it no credentials.

    `credential` gives the secret as it is now and is asked before each call that needs it.
    """
    return TYPES[given["type"]][1](name, given, credential) if has_one(given) else None

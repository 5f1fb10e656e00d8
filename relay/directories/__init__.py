"""Directories: the identity providers' own records, asked over HTTP. `build` makes the one of a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from relay.config_checks import has_directory
from relay.directories.base import Directory
from relay.directories.entra import EntraDirectory
from relay.directories.okta import OktaDirectory

#: Makes a directory of (name, the source in relay.yaml, what gives its credential).
Maker = Callable[[str, Mapping[str, Any], Callable[[], str]], Directory]

TYPES: Mapping[str, Maker] = {"okta": OktaDirectory, "entra": EntraDirectory}


def build(name: str, given: Mapping[str, Any], credential: Callable[[], str]) -> Directory | None:
    """The directory of a source, None where relay.yaml gives it no credentials.

    `credential` gives the secret as it is now and is asked before each call that needs it.
    """
    return TYPES[given["type"]](name, given, credential) if has_directory(given) else None

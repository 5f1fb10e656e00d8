"""The identity providers that can speak to the relay, each by its `type` in relay.yaml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from relay.sources.base import Handshake, Parsed, Source
from relay.sources.entra import Entra
from relay.sources.okta import Okta

__all__ = ["TYPES", "Handshake", "Parsed", "Source", "build"]

Maker: TypeAlias = Callable[[str, Mapping[str, Any], Callable[[], Sequence[str]]], Source]

TYPES: Mapping[str, Maker] = {"okta": Okta, "entra": Entra}


def build(name: str, config: Mapping[str, Any], secret: Callable[[], Sequence[str]]) -> Source:
    """The source `name` of relay.yaml. `secret` gives the secrets that are valid now; none lets nobody in.

    `config` is the source's validated mapping; its `type` must be one of TYPES (else KeyError).
    """
    return TYPES[config["type"]](name, config, secret)

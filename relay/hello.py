"""What `make run` says once the relay answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from urllib.parse import parse_qs, urlsplit

from relay import demo
from relay.config_checks import LOOPBACK
from relay.demo import DemoFailed
from relay.errors import ConfigError, Problem
from relay.settings import Environment, Settings

#: Seconds to wait for the relay's first answer.
PATIENCE = 60.0
#: The port that the Makefile's commands take when nobody names one.
USUAL_PORT = 8080

TEXT = """
The relay answers on {relay}; Velt's stand-in is on {sandbox}.

See it work, from another terminal in this folder:

  {demo}

or step by step: Okta says that somebody left a group,

  curl -i {relay}/hooks/okta -H "Authorization: {okta}" -d @docs/try/okta-group-removal.json

this is what the relay made of it, on the command line and by HTTP,

  make relay ARGS="events"
  curl -s {relay}/api/v1/events -H "Authorization: Bearer {operator}"

and this is what Velt was asked to remove:

  curl -s {sandbox}/calls

`make relay` alone lists the commands. Ctrl-C here stops everything.
"""


def run(settings: Settings, echo: Callable[[str], None]) -> int:
    """Wait for the relay, print what to try, then stay: the process manager takes an end for a failure."""
    relay = demo.url_of(settings)
    _wait_for(relay)
    okta = _shown(settings.source_secret("okta")(), settings.secret_variable("okta") or "SECRET")
    operator = _shown([token.secret for token in settings.tokens()], "RELAY_OPS_TOKEN")
    port = urlsplit(relay).port
    told = TEXT.format(
        relay=relay,
        sandbox=settings.velt_base_url,
        demo="make demo" if port == USUAL_PORT else f"make demo PORT={port}",
        okta=okta,
        operator=operator,
    )
    for line in told.splitlines():
        echo(line)
    while True:
        time.sleep(3600)


def check(environment: Environment) -> None:
    """Raise ConfigError where a relay for trying would work with anything but this machine."""
    addresses = {
        "VELT_BASE_URL": environment.velt_base_url,
        "DATABASE_URL": environment.database_url,
        "RELAY_ALERT_URL": environment.alert_url(),
    }
    hosts = {name: host for name, url in addresses.items() if (host := _host_elsewhere(url))}
    if hosts:
        named = " and ".join(f"{name} leads to {host}" for name, host in hosts.items())
        told = f"`make run` tries the relay on this machine only, but {named}: run it in a shell without your .env"
        raise ConfigError([Problem("", told)])


def _host_elsewhere(url: str) -> str | None:
    """The host of an address, None for this machine and for files."""
    parts = urlsplit(url)
    host = parse_qs(parts.query).get("host", [""])[0] or parts.hostname or ""
    is_here = not host or host.startswith("/") or host in LOOPBACK  # "/": the folder of PostgreSQL's socket
    return None if is_here else host


def _shown(values: Sequence[str], variable: str) -> str:
    """The first value when it is a made-up one for trying, else where the reader has to look for it."""
    made_up = values and values[0].startswith("dev")
    return values[0] if made_up else f"${variable}"


def _wait_for(relay: str) -> None:
    """Return when the relay is ready. Raises DemoFailed with its last answer when it does not become so."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            demo.call(f"{relay}/readyz")
            return
        except DemoFailed:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)

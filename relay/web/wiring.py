"""What the routes work with, kept up with relay.yaml."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from flask import current_app

from relay import compose, log
from relay.config import Config
from relay.errors import ConfigError
from relay.rules import RuleSet
from relay.settings import Settings, missing
from relay.sources.base import Source
from relay.store.database import Database
from relay.store.record import Recorder

#: Seconds between two looks at relay.yaml.
LOOK = 1.0


@dataclass(frozen=True, slots=True)
class _Built:
    """What is made of one relay.yaml."""

    config: Config
    sources: Mapping[str, Source]
    rules: RuleSet


@dataclass
class Relay:
    """One web process's parts. `sources`, `rules` and `config` are those of relay.yaml as it is now."""

    settings: Settings
    database: Database
    recorder: Recorder
    _built: _Built = field(init=False, repr=False)
    _looked: float = field(default=0.0, init=False, repr=False)
    _looking: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._built = self._build()

    @property
    def sources(self) -> Mapping[str, Source]:
        """The sources that come by hook, by name."""
        return self._now().sources

    def rules(self) -> RuleSet:
        return self._now().rules

    def config(self) -> Config:
        return self._now().config

    def _now(self) -> _Built:
        if time.monotonic() - self._looked >= LOOK and self._looking.acquire(blocking=False):
            try:
                self._looked = time.monotonic()
                self._look()
            finally:
                self._looking.release()
        return self._built

    def _look(self) -> None:
        """Take a changed relay.yaml; a broken one is refused loudly, once, and the old one stays."""
        try:
            if not self.settings.config_file.refresh():
                return
        except ConfigError as error:
            for problem in error.problems:
                log.get().error("relay.yaml refused, the old one stays", problem=str(problem))
            return
        self._built = self._build()
        log.get().info("rules loaded", rules=self._built.config.version)
        for problem in missing(self.settings, "web"):
            log.get().error("something is missing", problem=str(problem))

    def _build(self) -> _Built:
        config = self.settings.config_file.current
        return _Built(config, compose.sources_of(self.settings), compose.compiled(config))


def relay() -> Relay:
    """The parts of the application that serves this request."""
    found: Relay = current_app.extensions["relay"]
    return found

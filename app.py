"""The WSGI application: `gunicorn app:app`."""

from __future__ import annotations

import sys

from relay import log
from relay.errors import ConfigError
from relay.settings import load
from relay.web import create_app

try:
    settings = load()
    log.configure(settings.log_level)
    app = create_app(settings)
except ConfigError as error:
    sys.exit(str(error))  # one line for each thing that is wrong, and exit code 1

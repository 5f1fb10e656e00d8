"""The web process: hooks, SCIM, the API, health."""

from __future__ import annotations

from flask import Flask

from relay import compose
from relay.errors import ConfigError
from relay.settings import Settings, load, missing
from relay.store.record import Recorder
from relay.web import api, front, health, hooks, openapi, problems
from relay.web.wiring import Relay

#: Bytes of a request that is not a hook's; hooks have their source's own limit.
MAX_BODY = 1 << 20


def create_app(settings: Settings | None = None) -> Flask:
    """The Flask application; opens nothing before its first request, because gunicorn forks after this.

    `settings`: the environment's where left out. Raises ConfigError with everything that is wrong or missing.
    """
    settings = settings or load()
    lacking = missing(settings, "web")
    if lacking:
        raise ConfigError(lacking)
    app = Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    app.url_map.merge_slashes = False  # /hooks//okta is a 404, not a redirect that no provider follows
    app.json.sort_keys = False  # type: ignore[attr-defined]
    database = compose.database_of(settings)
    app.extensions["relay"] = Relay(settings, database, Recorder(database))
    problems.register(app)
    for blueprint in (front.bp, hooks.bp, health.bp, api.bp, openapi.bp):
        app.register_blueprint(blueprint)
    if any(source["type"] == "scim" for source in settings.config_file.current.sources.values()):
        from relay.web import scim  # its libraries take 15 MB, which a relay without SCIM can do without

        scim.register(app, app.extensions["relay"])
    return app

"""The yardstick: a Flask view that reads the request's body and answers 204, for the same gunicorn settings."""

from __future__ import annotations

from flask import Flask, request
from flask.typing import ResponseReturnValue

app = Flask(__name__)


@app.post("/hooks/okta")
def hook() -> ResponseReturnValue:
    request.get_data()
    return "", 204


@app.get("/readyz")
def ready() -> ResponseReturnValue:
    return "", 200

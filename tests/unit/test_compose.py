"""How the parts are put together."""

from __future__ import annotations

import threading
from pathlib import Path

from relay import compose, settings
from relay.config import ConfigFile
from relay.config_checks import FIELDS_BY_SOURCE
from relay.store.database import Database
from relay.store.tables import events
from tests.alert_receiver import receiving
from tests.config_files import write_config

CONFIG = """\
sources:
  work: {type: okta, secret: {env: OKTA_HOOK_SECRET}}
  cloud: {type: entra, client_state: {env: ENTRA_CLIENT_STATE}}
identity: {velt_user_id: ["{user.id}"]}
rules:
  - {name: all, when: {kind: [account.deleted]}, revoke: [{type: organization, id: acme}]}
"""


def test_a_worker_tells_alerts_to_the_address_of_the_environment(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    with database.write() as connection:
        kept = {"source": "work", "kind": "account.deleted", "type": "x", "as_of": 1, "received_at": 1, "payload": b""}
        connection.execute(events.insert().values(id="evt_1", state="failed", **kept))
    with receiving() as receiver:
        environ = {
            "RELAY_CONFIG": str(write_config(tmp_path, CONFIG)),
            "DATABASE_URL": database_url,
            "RELAY_ALERT_URL": receiver.url,
        }
        worker = compose.worker(settings.load(environ))
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            [body] = receiver.wait_for(1)
        finally:
            worker.stop()
            thread.join(20)
    assert (body["key"], body["state"]) == ("failed", "raised")


def test_each_source_fills_what_the_table_says_of_its_type(tmp_path: Path) -> None:
    rules = compose.compiled(ConfigFile(write_config(tmp_path, CONFIG)).current)
    assert rules.fills == {"work": FIELDS_BY_SOURCE["okta"], "cloud": FIELDS_BY_SOURCE["entra"]}

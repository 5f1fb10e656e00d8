"""How the parts are put together."""

from __future__ import annotations

from pathlib import Path

from relay import compose
from relay.config import ConfigFile
from relay.config_checks import FIELDS_BY_SOURCE
from tests.config_files import write_config

CONFIG = """\
sources:
  work: {type: okta, secret: {env: OKTA_HOOK_SECRET}}
  cloud: {type: entra, client_state: {env: ENTRA_CLIENT_STATE}}
identity: {velt_user_id: ["{user.id}"]}
rules:
  - {name: all, when: {kind: [account.deleted]}, revoke: [{type: organization, id: acme}]}
"""


def test_each_source_fills_what_the_table_says_of_its_type(tmp_path: Path) -> None:
    rules = compose.compiled(ConfigFile(write_config(tmp_path, CONFIG)).current)
    assert rules.fills == {"work": FIELDS_BY_SOURCE["okta"], "cloud": FIELDS_BY_SOURCE["entra"]}

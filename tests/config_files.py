"""A short and a full relay.yaml, and how to put one on disk."""

from __future__ import annotations

from pathlib import Path

GOOD = """\
sources:
  okta: {type: okta, secret: {env: OKTA_HOOK_SECRET}}
  entra: {type: entra, client_state: {env: ENTRA_CLIENT_STATE}}
identity: {velt_user_id: ["{user.id}"]}
lists:
  all: [{type: organization, id: acme}]
rules:
  - name: first
    when: {kind: [group.member_removed], group.id: [g1]}
    revoke: [{list: all}]
"""

FULL = """\
sources:
  okta:
    type: okta
    secret: {env: A}
    header: X-Hook
    kinds: {user.account.lock: account.suspended}
    api: {url: "https://acme.example.com", token: {env: B}}
  entra:
    type: entra
    client_state: {env: C}
    graph: {tenant: t, client_id: c, client_secret: {env: D}, url: "http://127.0.0.1:1/v1.0", login_url: "https://l.example"}
    public_url: https://relay.acme.example.com
  scim: {type: scim, token: {env: E}}
identity: {velt_user_id: ["{user.email}", "{user.login}", "x-{user.id}-{{y}}", "{user.external_id}"], map: users.csv}
lists:
  all: &all
    - {type: organization, id: acme}
    - {type: document, id: d, organizationId: acme}
    - {type: folder, id: f, organizationId: acme}
  same: *all
rules:
  - name: a
    when:
      kind: account.deleted
      source: [{anything-but: [scim]}, okta]
      user.id: x
      user.login: [{prefix: a}, {suffix: b}, {wildcard: "a*"}]
      user.email: {regex: "(?P<box>.+)@example\\\\.com"}
      user.external_id: [{exists: false}, {equals-ignore-case: q}, {anything-but: r}]
      group.name: [y]
      app.id: [z]
    revoke: [{list: all}, {type: document, id: "{box}-{user.id}", organizationId: "{group.id}"}]
  - {name: b, when: {kind: [account.deactivated]}, revoke: everything, max_resources: 50}
guard: {users: 100, within: 1h, account_losses: exempt}
mode: observe
accounts: same_source
look_up: {patience: 10m}
velt: {timeout: 5s, concurrency: 4, rate: 2.5, confirm: true}
retention: {events: 30d, payloads: 1d}
log: {users: shown}
"""


def write_config(directory: Path, text: str, users: str | None = None) -> Path:
    """Write relay.yaml and, when given, users.csv; return the path of relay.yaml."""
    if users is not None:
        (directory / "users.csv").write_text(users, encoding="utf-8")
    path = directory / "relay.yaml"
    path.write_text(text, encoding="utf-8")
    return path

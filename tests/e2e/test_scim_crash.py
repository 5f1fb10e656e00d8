"""The web process is killed while SCIM clients change groups: what was answered is stored, once, with its event."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select

from relay.store.database import Database
from relay.store.tables import events, scim_members
from tests.processes import PATIENCE, Program, Stack, running
from tests.scim_app import RELAY_YAML, TOKEN

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(100)]

CLIENTS = 4
MEMBERS = 60


class Client(threading.Thread):
    """Removes the members of one group, one after the other; what was not answered 204 is sent again."""

    def __init__(self, stack: Stack, number: int) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self.members = [f"usr_{number}_{each}" for each in range(MEMBERS)]
        self.answered: list[str] = []
        self.failed = 0
        listed = [{"value": member} for member in self.members]
        status, body = self._send("POST", "/Groups", {"displayName": f"Group {number}", "members": listed})
        assert status == 201
        self.group = json.loads(body)["id"]

    def run(self) -> None:
        for member in self.members:
            removal = {"op": "Remove", "path": "members", "value": [{"value": member}]}
            while self._send("PATCH", f"/Groups/{self.group}", {"Operations": [removal]})[0] != 204:
                self.failed += 1
                time.sleep(0.02)
            self.answered.append(member)

    def _send(self, method: str, path: str, document: object) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self._stack.port, timeout=PATIENCE)
        headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/scim+json"}
        try:
            connection.request(method, f"/scim/directory/v2{path}", json.dumps(document), headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()


def removed(database: Database) -> Counter[str]:
    with database.read() as connection:
        statement = select(events.c.subject).where(events.c.kind == "group.member_removed")
        return Counter(connection.execute(statement).scalars())


def kill_after(web: Program, stack: Stack, clients: list[Client], answers: int) -> Program:
    """Kill the web process once that much was answered, and start another one."""
    web.until(lambda: sum(len(client.answered) for client in clients) >= answers, f"{answers} answers")
    web.kill()
    return stack.web()


def test_a_killed_web_process_loses_no_removal_and_tells_none_twice(
    tmp_path: Path, database: Database, database_url: str
) -> None:
    with running(tmp_path, database_url, "http://127.0.0.1:1", RELAY_YAML) as stack:
        stack.environ |= {"SCIM_TOKEN": TOKEN, "OTHER_TOKEN": "another"}
        web = stack.web()
        clients = [Client(stack, number) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for answers in (40, 100, 160):
            web = kill_after(web, stack, clients, answers)
            answered = {member for client in clients for member in list(client.answered)}
            assert answered <= removed(database).keys()
        for client in clients:
            client.join(PATIENCE)
            assert client.answered == client.members
        assert sum(client.failed for client in clients) > 0
    everybody = [member for client in clients for member in client.members]
    assert removed(database) == Counter(everybody)
    with database.read() as connection:
        assert connection.execute(select(scim_members)).all() == []

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from relay.model import Answer, Resource, from_iso
from relay.sandbox import ANSWERS, SandboxServer, make_server
from relay.velt import Velt, body, question

ACME = Resource("organization", "acme")
ROADMAP = Resource("document", "roadmap", "acme")
FINANCE = Resource("folder", "finance", "acme")
KEYS = {"x-velt-api-key": "any", "x-velt-auth-token": "thing"}


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def server(lines: list[str]) -> Iterator[SandboxServer]:
    with make_server(0, echo=lines.append) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def url(server: SandboxServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def velt(url: str) -> Iterator[Velt]:
    client = Velt(url, lambda: ("any", "thing"), timeout=5)
    yield client
    client.close()


def post(url: str, path: str, content: object, headers: dict[str, str] = KEYS) -> requests.Response:
    return requests.post(url + path, json=content, headers=headers, timeout=5)


def permissions(url: str, verb: str, content: object) -> Any:
    return post(url, f"/v2/auth/permissions/{verb}", content).json()


def add(*resources: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"user": {"userId": "ada"}, "permissions": {"resources": list(resources)}}}


def get(must_exist: bool = False) -> dict[str, Any]:
    return question(["ada"], [ROADMAP, FINANCE], must_exist=must_exist)


def roles(url: str) -> dict[str, str | None]:
    """What permissions/get shows of ada: role or error code."""
    shown = permissions(url, "get", get())["result"]["data"]["ada"]
    entries = {**shown["organization"], **shown["documents"], **shown["folders"]}
    return {name: entry.get("accessRole") or entry["errorCode"] for name, entry in entries.items()}


def test_the_relays_client_gets_its_way(url: str, velt: Velt, lines: list[str]) -> None:
    outcome = velt.remove("ada", [ACME, ROADMAP])

    assert outcome.answer is Answer.REMOVED
    (call,) = requests.get(f"{url}/calls", timeout=5).json()["calls"]
    assert from_iso(call.pop("at")) > 0
    assert call == {"userId": "ada", "resources": [ACME.as_velt(), ROADMAP.as_velt()], "status": 200}
    assert lines == ["200 remove from ada: organization acme, document roadmap"]


def test_what_is_added_is_there_and_what_is_removed_is_not(url: str) -> None:
    viewer = {**ROADMAP.as_velt(), "accessRole": "viewer", "expiresAt": 1893456000}
    assert permissions(url, "add", add(ACME.as_velt(), viewer, FINANCE.as_velt()))["result"]["status"] == "success"
    assert permissions(url, "get", get(must_exist=True))["result"]["data"]["ada"] == {
        "organization": {"acme": {"accessRole": "editor"}},
        "documents": {"roadmap": {"accessRole": "viewer", "accessType": "restricted", "expiresAt": 1893456000}},
        "folders": {"finance": {"accessRole": "editor", "accessType": "restricted"}},
    }

    permissions(url, "remove", body("ada", [ACME, ROADMAP]))
    left = permissions(url, "get", get())["result"]["data"]["ada"]

    assert left["organization"]["acme"]["errorCode"] == "permission_denied"
    assert left["documents"]["roadmap"]["errorCode"] == "permission_denied"
    assert left["folders"]["finance"]["accessRole"] == "editor"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("success", Answer.REMOVED),
        ("unavailable", Answer.RETRY),
        ("unauthorized", Answer.UNAUTHORIZED),
        ("throttled", Answer.RETRY),
        ("not_found", Answer.ABSENT),
        ("refused", Answer.REFUSED),
        ("internal", Answer.RETRY),
    ],
)
def test_it_misbehaves_as_told(url: str, velt: Velt, answer: str, outcome: Answer) -> None:
    permissions(url, "add", add(ACME.as_velt()))
    assert post(url, "/behaviour", {"answer": answer}).status_code == 200

    assert velt.remove("ada", [ACME]).answer is outcome
    assert (roles(url)["acme"] == "editor") is (outcome is not Answer.REMOVED)


def test_what_does_not_exist_fails_the_whole_question_unless_it_may(url: str) -> None:
    permissions(url, "add", add(ACME.as_velt(), FINANCE.as_velt()))
    answer = post(url, "/v2/auth/permissions/get", get(must_exist=True))
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "status": "NOT_FOUND",
        "message": "Folder or document does not exist",
        "details": {
            "ada": {
                "organization": {"acme": {"accessRole": "editor"}},
                "documents": {"roadmap": {"error": "Document does not exist", "errorCode": "does_not_exist"}},
                "folders": {"finance": {"accessRole": "editor", "accessType": "restricted"}},
            }
        },
    }
    assert roles(url) == {"acme": "editor", "roadmap": "permission_denied", "finance": "editor"}


def test_a_folder_gives_what_is_in_it(url: str) -> None:
    inside = {**ROADMAP.as_velt(), "folderId": "plans"}
    plans = {"type": "folder", "id": "plans", "organizationId": "acme", "folderId": "finance"}
    for declared in (inside, plans):
        assert post(url, "/resources", declared).status_code == 200
    permissions(url, "add", add(FINANCE.as_velt()))
    assert roles(url)["roadmap"] == "editor"

    permissions(url, "remove", body("ada", [FINANCE]))
    assert roles(url)["roadmap"] == "permission_denied"
    post(url, "/resources", {**FINANCE.as_velt(), "folderId": "plans"})  # one in the other
    assert roles(url)["roadmap"] == "permission_denied"


def test_a_grant_ends_at_its_time(url: str) -> None:
    permissions(url, "add", add({**ROADMAP.as_velt(), "expiresAt": 1}))
    assert roles(url)["roadmap"] == "permission_denied"


def test_the_access_type_can_be_set_and_is_told(url: str) -> None:
    told = post(url, "/resources", {**ROADMAP.as_velt(), "accessType": "public"}).json()
    assert told == {"resources": [{**ROADMAP.as_velt(), "accessType": "public"}]}
    permissions(url, "add", add(ROADMAP.as_velt()))

    shown = permissions(url, "get", get())["result"]["data"]["ada"]["documents"]["roadmap"]
    assert shown == {"accessRole": "editor", "accessType": "public"}
    assert requests.get(f"{url}/resources", timeout=5).json() == told


@pytest.mark.parametrize(
    ("wanted", "word"),
    [
        ([], "resources[0]"),
        ({"type": "document", "id": "roadmap"}, "organizationId"),
        ({**ROADMAP.as_velt(), "accessType": "secret"}, "organizationPrivate"),
        ({**ROADMAP.as_velt(), "accessType": []}, "organizationPrivate"),
        ({**ROADMAP.as_velt(), "folderId": 5}, "folderId"),
        ({**ROADMAP.as_velt(), "colour": "red"}, "colour"),
    ],
)
def test_a_resource_it_does_not_understand(url: str, wanted: object, word: str) -> None:
    answer = post(url, "/resources", wanted)

    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert word in answer.json()["error"]["message"]


def test_every_answer_is_tried_above() -> None:
    assert set(ANSWERS) == {"success", "unavailable", "unauthorized", "throttled", "not_found", "refused", "internal"}


def test_throttling_says_for_how_long(url: str, velt: Velt) -> None:
    post(url, "/behaviour", {"answer": "throttled"})

    assert velt.remove("ada", [ACME]).retry_after == 5


def test_it_misbehaves_so_many_times_and_for_whom(url: str, velt: Velt) -> None:
    post(url, "/behaviour", {"answer": "unavailable", "times": 2, "user": "ada"})
    shown = requests.get(f"{url}/behaviour", timeout=5).json()
    assert shown == {"behaviours": [{"answer": "unavailable", "times": 2, "user": "ada"}]}

    assert velt.remove("bob", [ACME]).answer is Answer.REMOVED
    assert [velt.remove("ada", [ACME]).answer for _ in range(3)] == [Answer.RETRY, Answer.RETRY, Answer.REMOVED]
    assert requests.get(f"{url}/behaviour", timeout=5).json() == {"behaviours": []}
    assert [call["status"] for call in requests.get(f"{url}/calls", timeout=5).json()["calls"]] == [200, 503, 503, 200]


def test_success_ends_misbehaviour(url: str, velt: Velt) -> None:
    post(url, "/behaviour", {"answer": "internal"})
    assert velt.remove("ada", [ACME]).answer is Answer.RETRY
    post(url, "/behaviour", {"answer": "success"})
    assert velt.remove("ada", [ACME]).answer is Answer.REMOVED


def test_calls_can_be_forgotten(url: str, velt: Velt) -> None:
    velt.remove("ada", [ACME])

    assert requests.delete(f"{url}/calls", timeout=5).status_code == 200
    assert requests.get(f"{url}/calls", timeout=5).json() == {"calls": []}


@pytest.mark.parametrize(
    "wanted",
    [[], {}, {"answer": "explode"}, {"answer": ["success"]}, {"answer": "internal", "times": 0},
     {"answer": "internal", "times": True}, {"answer": "internal", "times": "2"}, {"answer": "internal", "user": 5}],
)  # fmt: skip
def test_a_behaviour_it_does_not_know(url: str, wanted: object) -> None:
    answer = post(url, "/behaviour", wanted)

    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"x-velt-api-key": "any"}, "Auth Token not found in headers."),
        ({"x-velt-auth-token": "thing"}, "API key not found in headers."),
    ],
)
@pytest.mark.parametrize("verb", ["remove", "add", "get"])
def test_both_keys_are_wanted(url: str, headers: dict[str, str], message: str, verb: str) -> None:
    answer = post(url, f"/v2/auth/permissions/{verb}", body("ada", [ACME]), headers)

    assert answer.status_code == 400
    assert answer.json() == {"error": {"message": message, "status": "INVALID_ARGUMENT"}}


@pytest.mark.parametrize(
    ("verb", "content", "told"),
    [
        ("remove", body("ada", [ACME])["data"], "data"),
        ("remove", body("", [ACME]), "userId"),
        ("remove", body("ada", []), "resources"),
        ("remove", body("ada", [Resource("document", "roadmap")]), "organizationId"),
        ("remove", [], "object"),
        ("add", body("ada", [ACME]), "userId"),
        ("add", add({**ACME.as_velt(), "accessRole": "owner"}), "accessRole"),
        ("add", add("acme"), "resources"),  # type: ignore[arg-type]
        ("add", {"data": {"user": "ada", "permissions": {"resources": 5}}}, "userId"),
        ("get", {}, "organizationId"),
        ("get", {"data": {"organizationId": "acme", "userIds": ["ada"]}}, "documentIds"),
        ("get", {"data": {"organizationId": "acme", "userIds": "ada", "documentIds": ["a"]}}, "userIds"),
    ],
)
def test_a_bad_body_is_told_what_is_wrong(url: str, verb: str, content: object, told: str) -> None:
    answer = post(url, f"/v2/auth/permissions/{verb}", content)

    assert answer.status_code == 400
    assert answer.json()["error"]["status"] == "INVALID_ARGUMENT"
    assert told in answer.json()["error"]["message"]
    assert requests.get(f"{url}/calls", timeout=5).json() == {"calls": []}


def speak(server: SandboxServer, request: bytes) -> bytes:
    """The raw answer to a raw request, read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        pytest.param(b"", b"", id="no length"),
        pytest.param(b"Transfer-Encoding: chunked\r\n", b"2\r\n{}\r\n0\r\n\r\n", id="chunked"),
        pytest.param(b"Content-Length: -1\r\n", b"", id="negative length"),
        pytest.param(b"Content-Length: \xb2\r\n", b"", id="a digit that is none"),
        pytest.param(b"Content-Length: " + b"9" * 5000 + b"\r\n", b"", id="endless length"),
        pytest.param(b"Content-Length: 9999999\r\n", b"", id="too long"),
        pytest.param(b"Content-Length: 50\r\n", b"{}", id="shorter than it says"),
        pytest.param(b"Content-Length: 4\r\n", b"{bad", id="not JSON"),
        pytest.param(b"Content-Length: 2\r\n", b"\xff\xff", id="not UTF-8"),
        pytest.param(b"Content-Length: 100000\r\n", b"[" * 100_000, id="deeply nested"),
        pytest.param(b"Content-Length: 9000\r\n", b"1" * 9000, id="a number without end"),
    ],
)
def test_bad_requests_are_answered_with_400(
    server: SandboxServer, url: str, headers: bytes, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = b"x-velt-api-key: a\r\nx-velt-auth-token: b\r\n"
    answer = speak(server, b"POST /v2/auth/permissions/remove HTTP/1.1\r\n" + keys + headers + b"\r\n" + content)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["status"] == "INVALID_ARGUMENT"
    assert requests.get(url, timeout=5).status_code == 200
    assert "Traceback" not in capfd.readouterr().err


def test_odd_ids_do_not_break_the_line(url: str, velt: Velt, lines: list[str]) -> None:
    velt.remove("a\nda\ud800", [ACME])

    assert lines == ["200 remove from a da : organization acme"]
    assert requests.get(f"{url}/calls", timeout=5).json()["calls"][0]["userId"] == "a\nda\ud800"


def test_it_explains_itself(url: str) -> None:
    page = requests.get(url, timeout=5)

    assert page.headers["Content-Type"].startswith("text/plain")
    assert all(
        word in page.text for word in [*ANSWERS, "/calls", "/behaviour", "/resources", "/v2/auth/permissions/remove"]
    )


@pytest.mark.parametrize(
    "path", ["/v2/authentication/permissions/remove", "/permissions/remove", "/v2/auth/permissions/x"]
)
def test_a_wrong_address_is_no_answer_of_velts(url: str, path: str) -> None:
    answer = post(url, path, body("ada", [ACME]))

    assert answer.status_code == 404
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert requests.get(url + path, timeout=5).status_code == 404
    assert requests.delete(url + path, timeout=5).status_code == 404


def test_connections_are_kept(server: SandboxServer) -> None:
    request = b"GET / HTTP/1.1\r\n\r\n"

    assert speak(server, request + request).count(b"HTTP/1.1 200 OK") == 2

"""The Velt client against a hostile Velt on loopback."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from relay.model import Answer, Outcome, Resource
from relay.velt import Velt
from tests import fake_velt
from tests.fake_velt import FakeVelt

ACME = Resource("organization", "acme")
ROADMAP = Resource("document", "roadmap", "acme")
KEY = "test-key-5e1d"
TOKEN = "test-token-77aa"
TIMEOUT = 0.3
SLACK = 0.5
CERTIFICATE = Path(__file__).parent.parent / "loopback.pem"


@pytest.fixture
def fake() -> Iterator[FakeVelt]:
    with FakeVelt() as server:
        yield server


@pytest.fixture
def velt(fake: FakeVelt) -> Iterator[Velt]:
    client = Velt(fake.url, lambda: (KEY, TOKEN), timeout=5)
    yield client
    client.close()


@pytest.fixture
def hasty(fake: FakeVelt) -> Iterator[Velt]:
    client = Velt(fake.url, lambda: (KEY, TOKEN), timeout=TIMEOUT)
    yield client
    client.close()


def timed_remove(velt: Velt) -> tuple[Outcome, float]:
    start = time.monotonic()
    outcome = velt.remove("ada", [ACME])
    return outcome, time.monotonic() - start


def test_a_removal(fake: FakeVelt, velt: Velt) -> None:
    outcome = velt.remove("ada", [ACME, ROADMAP])

    assert outcome == Outcome(
        Answer.REMOVED, "Permissions removed successfully.", http_status=200, response=outcome.response
    )
    (call,) = fake.calls
    assert (call.user_id, call.resources) == ("ada", {ACME, ROADMAP})
    assert call.path == "/v2/auth/permissions/remove"
    assert call.headers["x-velt-api-key"] == KEY
    assert call.headers["x-velt-auth-token"] == TOKEN
    assert call.headers["content-type"] == "application/json"


def test_any_id_that_json_can_carry_arrives(fake: FakeVelt, velt: Velt) -> None:
    odd = Resource("document", "\u00fc \U0001f600 \ud800 \x00 \"\\ '", "acme")

    assert velt.remove("a\u200bda", [odd]).answer is Answer.REMOVED
    assert (fake.calls[0].user_id, fake.calls[0].resources) == ("a\u200bda", {odd})


def test_a_base_url_may_end_in_a_slash(fake: FakeVelt) -> None:
    velt = Velt(fake.url + "/", lambda: (KEY, TOKEN))
    velt.remove("ada", [ACME])
    velt.close()

    assert fake.calls[0].path == "/v2/auth/permissions/remove"


def test_calls_share_a_connection(fake: FakeVelt, velt: Velt) -> None:
    fake.script(fake_velt.error("NOT_FOUND", 404))
    for _ in range(3):
        velt.remove("ada", [ACME])

    assert [call.connection for call in fake.calls] == [1, 1, 1]


def test_each_thread_has_a_connection_of_its_own(fake: FakeVelt, velt: Velt) -> None:
    go = threading.Event()
    fake.always(fake_velt.held(go))
    with ThreadPoolExecutor(3) as pool:
        outcomes = [pool.submit(velt.remove, "ada", [ACME]) for _ in range(3)]
        calls = fake.wait_for(3)
        go.set()

    assert {outcome.result().answer for outcome in outcomes} == {Answer.REMOVED}
    assert len({call.connection for call in calls}) == 3


def test_keys_are_read_for_every_call(fake: FakeVelt) -> None:
    pairs = iter([("old", "one"), ("new", "two")])
    velt = Velt(fake.url, lambda: next(pairs))
    velt.remove("ada", [ACME])
    velt.remove("ada", [ACME])
    velt.close()

    assert [call.headers["x-velt-api-key"] for call in fake.calls] == ["old", "new"]
    assert [call.headers["x-velt-auth-token"] for call in fake.calls] == ["one", "two"]


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_redirects_are_not_followed(fake: FakeVelt, velt: Velt, code: int) -> None:
    with FakeVelt() as elsewhere:
        fake.script(fake_velt.redirect(f"{elsewhere.url}/v2/auth/permissions/remove", code))
        outcome = velt.remove("ada", [ACME])

        assert elsewhere.calls == []
    assert (outcome.answer, outcome.http_status, outcome.down) == (Answer.RETRY, code, True)


def test_a_redirect_to_nonsense_does_not_raise(fake: FakeVelt, velt: Velt) -> None:
    fake.script(fake_velt.redirect("http://[::1\xff"))

    assert velt.remove("ada", [ACME]).http_status == 302


def test_cookies_and_the_environment_are_not_used(fake: FakeVelt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    velt = Velt(fake.url, lambda: (KEY, TOKEN))
    fake.script(fake_velt.answer(200, {"result": {"status": "success"}}, {"Set-Cookie": "a=b"}))
    velt.remove("ada", [ACME])
    outcome = velt.remove("ada", [ACME])
    velt.close()

    assert outcome.answer is Answer.REMOVED
    assert "cookie" not in fake.calls[1].headers


HANGING = {
    "silence": fake_velt.silence(),
    "dripping headers": fake_velt.dripping_headers(),
    "dripping body": fake_velt.dripping_body(),
    "dripping chunks": fake_velt.dripping_body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "dripping 302": fake_velt.dripping_body(b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n"),
    "dripping 404": fake_velt.dripping_body(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9999\r\n\r\n"),
}


@pytest.mark.parametrize("kind", HANGING)
def test_one_deadline_for_the_whole_call(fake: FakeVelt, hasty: Velt, kind: str) -> None:
    fake.script(HANGING[kind])
    outcome, seconds = timed_remove(hasty)

    assert TIMEOUT * 0.9 < seconds < TIMEOUT + SLACK
    assert outcome.reason == "Velt did not answer within 0.3 s"
    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, True)


def test_the_line_is_fine_after_a_deadline(fake: FakeVelt, hasty: Velt) -> None:
    for kind in HANGING:
        fake.script(HANGING[kind], fake_velt.success())
        assert hasty.remove("ada", [ACME]).answer is Answer.RETRY
        assert hasty.remove("ada", [ACME]).answer is Answer.REMOVED


def test_the_deadline_is_each_calls_own(fake: FakeVelt, hasty: Velt) -> None:
    for _ in range(4):
        threading.Event().wait(TIMEOUT / 3)
        assert hasty.remove("ada", [ACME]).answer is Answer.REMOVED
    assert {call.connection for call in fake.calls} == {1}


def test_an_endless_body_is_not_read_to_the_end(fake: FakeVelt, velt: Velt) -> None:
    fake.script(fake_velt.endless_body())
    outcome, seconds = timed_remove(velt)

    assert seconds < 3
    assert (outcome.answer, outcome.unsure, outcome.http_status) == (Answer.RETRY, True, 200)
    assert "larger than 1048576 bytes" in outcome.reason


@pytest.mark.parametrize("how", ["closed", "reset"])
def test_a_connection_that_breaks_before_the_answer(fake: FakeVelt, velt: Velt, how: str) -> None:
    fake.script(getattr(fake_velt, how)())
    outcome = velt.remove("ada", [ACME])

    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, True)
    assert outcome.http_status is None
    assert "broke before the answer" in outcome.reason
    assert velt.remove("ada", [ACME]).answer is Answer.REMOVED


def test_a_truncated_success_is_no_success(fake: FakeVelt, velt: Velt) -> None:
    fake.script(fake_velt.truncated())
    outcome = velt.remove("ada", [ACME])

    assert (outcome.answer, outcome.http_status, outcome.down, outcome.unsure) == (Answer.RETRY, 200, False, True)


def test_a_success_that_is_shorter_than_announced_is_no_success(fake: FakeVelt, velt: Velt) -> None:
    def short(connection: socket.socket, stopped: threading.Event) -> bool:
        connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"result": {"status": "success"}}')
        return False

    fake.script(short)

    assert velt.remove("ada", [ACME]).answer is Answer.RETRY


@pytest.mark.parametrize(
    "nonsense",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\x00" * 100, b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 500],
)
def test_an_answer_that_is_not_http(fake: FakeVelt, velt: Velt, nonsense: bytes) -> None:
    def speak(connection: socket.socket, stopped: threading.Event) -> bool:
        connection.sendall(nonsense)
        return False

    fake.script(speak)
    outcome = velt.remove("ada", [ACME])

    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, True)


def test_a_body_that_claims_to_be_gzip(fake: FakeVelt, velt: Velt) -> None:
    fake.script(fake_velt.answer(200, {"result": {"status": "success"}}, {"Content-Encoding": "gzip"}))

    assert velt.remove("ada", [ACME]).answer is Answer.RETRY


def test_a_refused_connection_was_never_sent(fake: FakeVelt, velt: Velt) -> None:
    velt.remove("ada", [ACME])
    fake.down()
    outcome = velt.remove("ada", [ACME])

    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, False)
    assert "could not be reached at 127.0.0.1" in outcome.reason
    assert "refused" in outcome.reason
    fake.up()
    assert velt.remove("ada", [ACME]).answer is Answer.REMOVED
    assert len(fake.calls) == 2


def test_a_name_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    outcome = Velt("http://velt.invalid", lambda: (KEY, TOKEN)).remove("ada", [ACME])

    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, False)
    assert "velt.invalid" in outcome.reason
    assert "not known" in outcome.reason


@pytest.mark.parametrize(
    "url", ["api.example.com", "ftp://api.example.com", "http://", "http://a..b", "http://\u00fc\ud800"]
)
def test_an_address_that_is_none(url: str) -> None:
    outcome = Velt(url, lambda: (KEY, TOKEN)).remove("ada", [ACME])

    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, False)


def test_nothing_is_sent_once_the_time_is_over(fake: FakeVelt, hasty: Velt, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def slow(self: socket.socket, address: tuple[str, int]) -> None:
        threading.Event().wait(TIMEOUT + 0.1)
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", slow)
    outcome = hasty.remove("ada", [ACME])

    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, False)
    assert "no time was left" in outcome.reason
    assert fake.calls == []


def test_a_listener_that_accepts_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        velt = Velt(f"https://127.0.0.1:{listener.getsockname()[1]}", lambda: (KEY, TOKEN), timeout=TIMEOUT)
        outcome, seconds = timed_remove(velt)

    assert seconds < TIMEOUT + SLACK
    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, False)


def test_retry_after_comes_with_a_retry(fake: FakeVelt, velt: Velt) -> None:
    fake.script(
        fake_velt.error("RESOURCE_EXHAUSTED", 429, Retry_After="7"),
        fake_velt.error("UNAVAILABLE", 503, Retry_After="soon"),
        fake_velt.error("PERMISSION_DENIED", 403, Retry_After="7"),
    )

    assert [velt.remove("ada", [ACME]).retry_after for _ in range(3)] == [7.0, None, None]


def test_no_key_is_told(fake: FakeVelt, velt: Velt) -> None:
    fake.script(
        fake_velt.error("PERMISSION_DENIED", 403, f"Invalid API key {KEY} with {TOKEN}"),
        fake_velt.answer(502, f"<p>x-velt-auth-token: {TOKEN}</p>".encode()),
    )

    for _ in range(2):
        outcome = velt.remove("ada", [ACME])
        told = outcome.reason + repr(outcome) + repr(velt) + outcome.response.decode()
        assert KEY not in told
        assert TOKEN not in told


def test_a_document_called_api_key_does_not_blame_the_key(fake: FakeVelt, velt: Velt) -> None:
    fake.script(fake_velt.error("NOT_FOUND", 404, "Document api-key does not exist"))

    assert velt.remove("ada", [Resource("document", "api-key", "acme")]).answer is Answer.ABSENT


@pytest.fixture
def encrypted() -> Iterator[FakeVelt]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with FakeVelt(tls=context) as server:
        yield server


@pytest.mark.parametrize("kind", ["silence", "dripping headers", "dripping body"])
def test_the_deadline_holds_over_tls(encrypted: FakeVelt, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(CERTIFICATE))
    velt = Velt(encrypted.url, lambda: (KEY, TOKEN), timeout=TIMEOUT)
    assert velt.remove("ada", [ACME]).answer is Answer.REMOVED
    encrypted.script(HANGING[kind])
    outcome, seconds = timed_remove(velt)

    assert TIMEOUT * 0.9 < seconds < TIMEOUT + SLACK
    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, True)
    assert velt.remove("ada", [ACME]).answer is Answer.REMOVED
    assert [call.connection for call in encrypted.calls] == [1, 1, 2]
    velt.close()


def test_an_unknown_certificate_is_refused(encrypted: FakeVelt) -> None:
    velt = Velt(encrypted.url, lambda: (KEY, TOKEN))
    outcome = velt.remove("ada", [ACME])
    velt.close()

    assert (outcome.answer, outcome.down, outcome.unsure) == (Answer.RETRY, True, False)
    assert "certificate" in outcome.reason
    assert encrypted.calls == []

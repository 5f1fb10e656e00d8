"""The HTTP client of the directories and its few seconds of memory, with real HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from relay.directories.http import Client
from relay.directories.recent import Recent
from relay.errors import LookUpFailed
from tests import fake_velt
from tests.fake_okta_api import Answer, Request, Server

SECRET = "acme-token-which-nobody-may-see"


class Fake:
    """Answers what a test puts in, else `{}`; keeps what was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[tuple[Request, bytes]] = []
        self.server = Server(self._respond)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def _respond(self, request: Request, content: bytes) -> Answer:
        self.requests.append((request, content))
        return self.answers.pop(0) if self.answers else Answer(200, {})


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.server.stop()


def bearer(refused: Mapping[str, str] | None) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {SECRET}"}


@pytest.fixture
def make(fake: Fake) -> Iterator[Callable[..., Client]]:
    made = []

    def build(authorize: Any = bearer, **more: Any) -> Client:
        made.append(Client("Acme", more.pop("url", fake.url), authorize, **more))
        return made[-1]

    yield build
    for client in made:
        client.close()


@pytest.fixture
def client(make: Callable[..., Client]) -> Client:
    return make()


def failure(ask: Callable[[], object]) -> LookUpFailed:
    with pytest.raises(LookUpFailed) as caught:
        ask()
    assert SECRET not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
    return caught.value


def test_what_is_asked_and_told(fake: Fake, client: Client) -> None:
    fake.answers = [Answer(200, {"a": [1]}, (("X-Some", "thing"),))]

    asked, headers = {"q": 'a "b" & c', "limit": 2}, {"ConsistencyLevel": "eventual"}
    found = client.call("GET", "/things", params=asked, headers=headers)

    assert (found.status, found.body, found.headers["x-some"]) == (200, {"a": [1]}, "thing")
    request = fake.requests[0][0]
    assert (request.method, request.path, request.query) == ("GET", "/things", {"q": 'a "b" & c', "limit": "2"})
    assert request.headers["Authorization"] == f"Bearer {SECRET}"
    assert (request.headers["ConsistencyLevel"], request.headers["Accept"]) == ("eventual", "application/json")


def test_posts_of_json_and_of_a_form(fake: Fake, client: Client) -> None:
    fake.answers = [Answer(204, b"")]

    assert client.post("/x", content={"a": 1}).body is None
    client.post("/x", form={"b": "2 3"})

    assert [content for _, content in fake.requests] == [b'{"a": 1}', b"b=2+3"]
    kinds = [request.headers["Content-Type"] for request, _ in fake.requests]
    assert kinds == ["application/json", "application/x-www-form-urlencoded"]


def test_statuses_that_the_caller_wants_to_see(fake: Fake, client: Client) -> None:
    fake.answers = [Answer(404, {"error": {"code": "Gone"}}), Answer(410, {"errorCode": "E1"}), Answer(404, {})]

    assert (client.get("/x").status, client.get("/x", answers=(410,)).code) == (404, "E1")
    failure(lambda: client.get("/x", answers=()))


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"errorCode": "E7", "errorSummary": "x"}, "E7"),
        ({"error": {"code": "Request_ResourceNotFound", "message": "x"}}, "Request_ResourceNotFound"),
        ({"error": "invalid_client", "error_description": "x"}, "invalid_client"),
        ({"error": {"code": 7}}, ""),
        ({"errorCode": None}, ""),
        (["x"], ""),
        ("x", ""),
        (None, ""),
    ],
)
def test_the_providers_own_code(fake: Fake, client: Client, body: Any, code: str) -> None:
    fake.answers = [Answer(404, body)]

    assert client.get("/x").code == code


def test_a_failure_names_host_status_code_and_text_but_no_token(fake: Fake, client: Client) -> None:
    fake.answers = [Answer(500, {"error": {"code": "Boom", "message": f"no\nway {SECRET}"}})]

    assert str(failure(lambda: client.get("/x"))) == "Acme at 127.0.0.1 answered HTTP 500, Boom: no way [key]"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(200, b"<html>"), "HTTP 200, and not in JSON"),
        (Answer(200, b"NaN"), "HTTP 200, and not in JSON"),
        (Answer(200, b"[" * 100_000), "HTTP 200, and not in JSON"),
        (Answer(404, b"<html>"), "HTTP 404, and not in JSON"),
        (Answer(502, b"<html>"), "HTTP 502, and not in JSON"),
        (Answer(302, b"", (("Location", "http://127.0.0.1:9/"),)), "HTTP 302: redirects are not followed"),
        (Answer(401, {}), "HTTP 401: the credential is refused"),
        (Answer(403, {}), "HTTP 403: the credential lacks a permission; it needs Some.Read"),
        (Answer(429, {}), "HTTP 429: too many requests"),
    ],
)
def test_what_is_no_answer(fake: Fake, client: Client, answer: Answer, told: str) -> None:
    fake.answers = [answer]

    assert told in str(failure(lambda: client.get("/x", needs="Some.Read")))
    assert len(fake.requests) == 1


def _date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry-After": "7"}, 7, 7),
        ({"X-Rate-Limit-Reset": "1000000030", "Date": "Sun, 09 Sep 2001 01:46:40 GMT"}, 30, 30),
        ({"X-Rate-Limit-Reset": "1000000030", "Date": "Sun, 09 Sep 2001 01:47:40 GMT"}, 0, 0),
        ({"X-Rate-Limit-Reset": "1000000030", "Date": "junk"}, 0, 0),
        ({"Retry-After": "7", "X-Rate-Limit-Reset": "99999999999"}, 7, 7),
    ],
)
def test_how_long_to_wait(fake: Fake, client: Client, headers: dict[str, str], low: float, high: float) -> None:
    check_wait(fake, client, headers, low, high)


def test_a_date_tells_how_long_to_wait(fake: Fake, client: Client) -> None:
    """Made when the test runs: the suite may take longer than the date leaves room for."""
    check_wait(fake, client, {"Retry-After": _date(3600)}, 3000, 3600)


def check_wait(fake: Fake, client: Client, headers: dict[str, str], low: float, high: float) -> None:
    from relay.directories.http import _wait

    found = _wait(429, headers)
    assert found is not None
    assert low <= found <= high

    fake.answers = [Answer(429, {}, tuple(headers.items()))]
    assert failure(lambda: client.get("/x")).retry_after is not None


def test_a_refusal_asks_nobody_to_wait_although_it_tells_of_the_window(fake: Fake, client: Client) -> None:
    fake.answers = [Answer(403, {}, (("X-Rate-Limit-Reset", "99999999999"),))]

    assert failure(lambda: client.get("/x")).retry_after is None


@pytest.mark.parametrize("headers", [(), (("Retry-After", "soon"), ("X-Rate-Limit-Reset", "-3"))])
def test_no_word_of_how_long(fake: Fake, client: Client, headers: tuple[tuple[str, str], ...]) -> None:
    fake.answers = [Answer(503, {}, headers)]

    assert failure(lambda: client.get("/x")).retry_after is None


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_proof_is_renewed_once(fake: Fake, make: Callable[..., Client], status: int) -> None:
    seen: list[Any] = []

    def authorize(refused: Any) -> dict[str, str]:
        seen.append(refused)
        return {"Authorization": f"Bearer {len(seen)}"}

    client = make(authorize)
    fake.answers = [Answer(status, {}), Answer(200, {"ok": 1}), Answer(status, {}), Answer(status, {})]

    assert client.get("/x").body == {"ok": 1}
    failure(lambda: client.get("/x"))
    assert [request.headers["Authorization"] for request, _ in fake.requests] == [f"Bearer {n}" for n in (1, 2, 3, 4)]
    assert seen == [None, {"Authorization": "Bearer 1"}, None, {"Authorization": "Bearer 3"}]


@pytest.mark.parametrize("bad", ["", "two\nlines", " x", "x\r\nHost: evil"])
def test_a_proof_that_no_header_can_carry(fake: Fake, make: Callable[..., Client], bad: str) -> None:
    told = failure(lambda: make(lambda refused: {"Authorization": bad}).get("/x"))

    assert "was not asked: the credential is empty or holds what no HTTP header may" in str(told)
    assert fake.requests == []


def test_a_link_to_the_next_page(fake: Fake, client: Client) -> None:
    link = f'<{fake.url}/x?after=2&q=a%20b>; rel="next"'
    fake.answers = [Answer(200, [1], (("Link", f'<{fake.url}/x>; rel="self"'), ("Link", link)))]

    first = client.get("/x")
    assert first.next == f"{fake.url}/x?after=2&q=a%20b"
    assert client.get(first.next).next is None
    assert fake.requests[1][0].query == {"after": "2", "q": "a b"}


@pytest.mark.parametrize(
    "link",
    [
        "https://127.0.0.1:{port}/x",
        "http://127.0.0.1:9/x",
        "http://127.0.0.1/x",
        "http://localhost:{port}/x",
        "http://127.0.0.1:{port}@evil.example/x",
        "http://evil.example\\@127.0.0.1:{port}x/x",
        "x",
        "",
        "http://127.0.0.1:{port}x/",
        "http://[/x",
        "file:///etc/passwd",
    ],
)
def test_a_token_leaves_for_no_other_host(fake: Fake, client: Client, link: str) -> None:
    url = link.format(port=fake.server.server_port)

    assert "a link to another address, which is not followed" in str(failure(lambda: client.get(url)))
    assert fake.requests == []


@pytest.mark.parametrize("start", ["HTTP://127.0.0.1:{port}", "http://ada:pw@127.0.0.1:{port}"])
def test_the_same_place_in_other_words_is_asked_by_our_own(fake: Fake, client: Client, start: str) -> None:
    client.get(start.format(port=fake.server.server_port) + "/x?a=1#part")

    request = fake.requests[0][0]
    assert (request.path, request.query) == ("/x", {"a": "1"})
    assert request.headers["Authorization"] == f"Bearer {SECRET}"


def test_the_environment_has_no_say(fake: Fake, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert client.get("/x").status == 200


def test_an_answer_has_a_size(fake: Fake, make: Callable[..., Client]) -> None:
    fake.answers = [Answer(200, "x" * 100)]

    assert "broke off: it is larger than 99 bytes" in str(failure(lambda: make(most=99).get("/x")))


def test_nobody_listens(make: Callable[..., Client]) -> None:
    assert "could not be reached" in str(failure(lambda: make(url="http://127.0.0.1:9").get("/x")))


@pytest.mark.parametrize(
    ("hostile", "told"),
    [
        (fake_velt.silence(), "did not answer within 0.2 s"),
        (fake_velt.dripping_headers(), "did not answer within 0.2 s"),
        (fake_velt.dripping_body(), "did not answer within 0.2 s"),
        (fake_velt.truncated(), "broke off"),
        (fake_velt.closed(), "broke off"),
        (fake_velt.reset(), "broke off"),
    ],
)
def test_a_server_cannot_hold_a_call(make: Callable[..., Client], hostile: fake_velt.Answer, told: str) -> None:
    with fake_velt.FakeVelt() as server:
        server.always(hostile)
        client = make(url=server.url, deadline=0.2)

        ask = {"data": {"userId": "ada", "permissions": {"resources": []}}}
        assert told in str(failure(lambda: client.post("/x", content=ask)))


def test_many_threads_at_once(fake: Fake, client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: client.get(f"/{number}").status, range(40)))

    assert found == [200] * 40
    assert {request.path for request, _ in fake.requests} == {f"/{number}" for number in range(40)}


# a few seconds of memory


def test_an_answer_is_kept_for_a_while() -> None:
    time = [0.0]
    recent: Recent[int] = Recent(5.0, clock=lambda: time[0])
    answers = iter(range(10))

    def ask() -> int:
        return next(answers)

    assert [recent.get("a", ask), recent.get("a", ask), recent.get("b", ask)] == [0, 0, 1]
    time[0] = 4.9
    assert recent.get("a", ask) == 0
    time[0] = 5.0
    assert recent.get("a", ask) == 2


def test_memory_is_bounded_and_the_oldest_goes() -> None:
    recent: Recent[str] = Recent(most=2)
    asked: list[str] = []

    def ask(key: str) -> str:
        return recent.get(key, lambda: asked.append(key) or key)

    for key in ("a", "b", "c", "c", "b", "a"):
        assert ask(key) == key
    assert asked == ["a", "b", "c", "a"]


def test_what_was_asked_anew_is_not_the_oldest() -> None:
    time = [0.0]
    recent: Recent[float] = Recent(5.0, most=2, clock=lambda: time[0])

    for time[0], key in ((0.0, "a"), (1.0, "b"), (5.0, "a"), (5.5, "c"), (5.6, "a")):
        kept = recent.get(key, lambda: time[0])

    assert kept == 5.0


def test_a_failure_is_not_kept() -> None:
    recent: Recent[int] = Recent()

    def fail() -> int:
        raise LookUpFailed("no")

    with pytest.raises(LookUpFailed):
        recent.get("a", fail)
    assert recent.get("a", lambda: 1) == 1


def test_who_asks_meanwhile_waits_for_the_same_answer() -> None:
    recent: Recent[int] = Recent()
    begun, go = threading.Event(), threading.Event()
    asked: list[int] = []

    def ask() -> int:
        asked.append(1)
        begun.set()
        assert go.wait(5)
        return 7

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(recent.get, "a", ask)
        assert begun.wait(5)
        others = [pool.submit(recent.get, "a", ask) for _ in range(3)]
        go.set()
        assert [future.result(5) for future in (first, *others)] == [7] * 4
    assert asked == [1]

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.answers import MEANINGS, classify, retry_after
from relay.model import Answer, Outcome

KEY = "velt-key-2f7c/91"
TOKEN = 'to"ken-b81e0d'


def error(status: object, message: object = "Made up.", **more: object) -> bytes:
    return json.dumps({"error": {"status": status, "message": message, **more}}).encode()


def flags(outcome: Outcome) -> str:
    return " ".join(name for name in ("down", "unsure") if getattr(outcome, name))


SUCCESS = b'{"result": {"status": "success", "message": "Permissions removed successfully."}}'
GONE = {"roadmap": {"success": False, "code": "not-found"}, "plan": {"success": True}}
MIXED = {"roadmap": {"success": False, "code": "not-found"}, "plan": {"success": False, "code": "internal"}}

VELT_ANSWERS = [
    # HTTP, body, answer, flags
    (200, SUCCESS, Answer.REMOVED, ""),
    (200, b'{"result": {"status": "success", "data": {}}}', Answer.REMOVED, ""),
    (202, SUCCESS, Answer.REMOVED, ""),
    (401, error("UNAUTHENTICATED"), Answer.UNAUTHORIZED, ""),
    (403, error("UNAUTHENTICATED"), Answer.UNAUTHORIZED, ""),
    (401, error("SOMETHING_NEW"), Answer.UNAUTHORIZED, ""),
    (400, error("INVALID_ARGUMENT", "Auth Token not found in headers."), Answer.UNAUTHORIZED, ""),
    (400, error("INVALID_ARGUMENT", "auth_token missing"), Answer.UNAUTHORIZED, ""),
    (403, error("PERMISSION_DENIED", "Invalid API key."), Answer.UNAUTHORIZED, ""),
    (404, error("NOT_FOUND", "No workspace has this apiKey"), Answer.UNAUTHORIZED, ""),
    (404, error("NOT_FOUND", "No such api-key", details=GONE), Answer.UNAUTHORIZED, ""),
    (403, error("PERMISSION_DENIED", "Not yours."), Answer.REFUSED, ""),
    (400, error("INVALID_ARGUMENT"), Answer.REFUSED, ""),
    (400, error("FAILED_PRECONDITION"), Answer.REFUSED, ""),
    (409, error("ALREADY_EXISTS"), Answer.REFUSED, ""),
    (400, error("OUT_OF_RANGE"), Answer.REFUSED, ""),
    (501, error("UNIMPLEMENTED"), Answer.REFUSED, ""),
    (404, error("NOT_FOUND"), Answer.ABSENT, ""),
    (500, error("INTERNAL", details=GONE), Answer.ABSENT, ""),
    (500, error("INTERNAL", details=[{"code": "NOT_FOUND"}]), Answer.ABSENT, ""),
    (400, error("INVALID_ARGUMENT", details=GONE), Answer.ABSENT, ""),
    (500, error("INTERNAL", details=MIXED), Answer.RETRY, "unsure"),
    (500, error("INTERNAL", details={"plan": {"success": True}}), Answer.RETRY, "unsure"),
    (500, error("INTERNAL", details={"roadmap": "not-found"}), Answer.RETRY, "unsure"),
    (500, error("INTERNAL", details="not-found"), Answer.RETRY, "unsure"),
    (500, error("INTERNAL", details=[]), Answer.RETRY, "unsure"),
    (500, error("INTERNAL"), Answer.RETRY, "unsure"),
    (503, error("UNAVAILABLE"), Answer.RETRY, "down unsure"),
    (504, error("DEADLINE_EXCEEDED"), Answer.RETRY, "unsure"),
    (429, error("RESOURCE_EXHAUSTED"), Answer.RETRY, ""),
    (429, error("RESOURCE_EXHAUSTED", "Rate limit of this API key exceeded."), Answer.RETRY, ""),
    (409, error("ABORTED"), Answer.RETRY, "unsure"),
    (499, error("CANCELLED"), Answer.RETRY, "unsure"),
    (500, error("UNKNOWN"), Answer.RETRY, "unsure"),
    (500, error("DATA_LOSS"), Answer.RETRY, "unsure"),
]

STATUS_BEFORE_CODE = [
    (200, error("NOT_FOUND"), Answer.ABSENT, ""),
    (200, error("UNAVAILABLE"), Answer.RETRY, "down unsure"),
    (200, error("PERMISSION_DENIED"), Answer.REFUSED, ""),
    (500, error("INVALID_ARGUMENT"), Answer.REFUSED, ""),
    (404, error("INTERNAL"), Answer.RETRY, "unsure"),
    # the code where the status is unknown
    (400, error("SOMETHING_NEW"), Answer.REFUSED, ""),
    (403, error(None), Answer.REFUSED, ""),
    (403, error(["PERMISSION_DENIED"]), Answer.REFUSED, ""),
    (429, error(429), Answer.RETRY, ""),
    (503, error("SOMETHING_NEW"), Answer.RETRY, "down unsure"),
    (404, error("SOMETHING_NEW"), Answer.RETRY, "down"),
    (200, error("SOMETHING_NEW"), Answer.RETRY, "unsure"),
]

STRANGERS = [
    (200, b"", Answer.RETRY, "unsure"),
    (204, b"", Answer.RETRY, "unsure"),
    (200, b"<html>welcome</html>", Answer.RETRY, "unsure"),
    (200, SUCCESS[:-4], Answer.RETRY, "unsure"),
    (200, b"[]", Answer.RETRY, "unsure"),
    (200, b"null", Answer.RETRY, "unsure"),
    (200, b"{}", Answer.RETRY, "unsure"),
    (200, b'{"result": "success"}', Answer.RETRY, "unsure"),
    (200, b'{"result": {"status": "queued"}}', Answer.RETRY, "unsure"),
    (200, b'{"status": "success"}', Answer.RETRY, "unsure"),
    (200, b'{"result": {"status": "success"}, "error": null}', Answer.RETRY, "unsure"),
    (200, b"[" * 100_000, Answer.RETRY, "unsure"),
    (200, b"\xff\xfe\x00", Answer.RETRY, "unsure"),
    (301, b"", Answer.RETRY, "down"),
    (307, SUCCESS, Answer.RETRY, "down"),
    (308, error("NOT_FOUND"), Answer.RETRY, "down"),
    (401, b"who are you", Answer.UNAUTHORIZED, ""),
    (404, b"<h1>Not Found</h1>", Answer.RETRY, "down"),
    (404, b'{"error": "Not Found"}', Answer.RETRY, "down"),
    (404, SUCCESS, Answer.RETRY, "down"),
    (413, b"too large", Answer.REFUSED, ""),
    (400, b"Bad Request", Answer.REFUSED, ""),
    (405, b"", Answer.RETRY, "down"),
    (403, b"<html>Blocked by the firewall</html>", Answer.RETRY, "down"),
    (408, b"", Answer.RETRY, ""),
    (425, b"", Answer.RETRY, ""),
    (429, b"slow down", Answer.RETRY, ""),
    (500, b"", Answer.RETRY, "down unsure"),
    (500, SUCCESS, Answer.RETRY, "down unsure"),
    (502, b"<html><body>Bad Gateway</body></html>", Answer.RETRY, "down unsure"),
    (503, b"overloaded", Answer.RETRY, "down unsure"),
    (504, b"", Answer.RETRY, "down unsure"),
]


@pytest.mark.parametrize(
    ("status", "content", "answer", "marks"),
    VELT_ANSWERS + STATUS_BEFORE_CODE + STRANGERS,
    ids=lambda value: str(value)[:70],
)
def test_what_an_answer_means(status: int, content: bytes, answer: Answer, marks: str) -> None:
    outcome = classify(status, content)

    assert (outcome.answer, flags(outcome)) == (answer, marks)
    assert outcome.http_status == status
    assert outcome.response == content[:4096]
    assert outcome.reason


@pytest.mark.parametrize("status", MEANINGS)
def test_names_the_status_velt_gave(status: str) -> None:
    assert classify(200, error(status)).velt_status == status


def test_claims_no_status_velt_did_not_give() -> None:
    assert classify(503, error(None)).velt_status is None
    assert classify(503, b"").velt_status is None
    assert classify(200, SUCCESS).velt_status is None


@pytest.mark.parametrize("name", ["api-key", "Auth token policy"])
def test_an_id_that_reads_like_a_key_is_not_a_wrong_key(name: str) -> None:
    content = error("NOT_FOUND", f"Document {name} does not exist")

    assert classify(404, content, ids=["ada", name]).answer is Answer.ABSENT
    assert classify(404, content, ids=["ada"]).answer is Answer.UNAUTHORIZED


def test_the_reason_holds_velts_message() -> None:
    assert classify(403, error("PERMISSION_DENIED", "Not yours.")).reason == (
        "Velt answered HTTP 403 PERMISSION_DENIED: Not yours."
    )
    assert "Bad Gateway" in classify(502, b"<h1>Bad Gateway</h1>").reason


@pytest.mark.parametrize("status", [302, 404])
def test_a_wrong_address_says_what_to_check(status: int) -> None:
    assert "VELT_BASE_URL" in classify(status, b"").reason


def test_redirects_say_that_they_are_not_followed() -> None:
    assert "redirects are not followed" in classify(302, b"").reason


def test_the_message_is_cut_and_cleaned() -> None:
    reason = classify(400, error("INVALID_ARGUMENT", "a\n\x1b[31mb\u202ec\ud800d" + "x" * 500)).reason

    assert "a [31mb c d" in reason
    assert reason.isprintable()
    assert len(reason) < 360


@pytest.mark.parametrize("message", [None, 5, {"deep": []}, ["a"]])
def test_a_message_that_is_no_text_is_left_out(message: object) -> None:
    assert classify(500, error("INTERNAL", message)).reason.endswith("no message")


@pytest.mark.parametrize(
    "content",
    [
        error("PERMISSION_DENIED", f"No access for {KEY} with {TOKEN}"),
        error("INVALID_ARGUMENT", "x" * 290 + KEY),
        f"<p>{KEY} {TOKEN}</p>".encode(),
        error("INTERNAL", KEY).replace(b"/", b"\\/"),
        SUCCESS.replace(b"successfully", KEY.encode()),
    ],
)
@pytest.mark.parametrize("status", [200, 403, 500])
def test_keys_are_cut_out(status: int, content: bytes) -> None:
    outcome = classify(status, content, keys=[KEY, TOKEN])

    shown = (outcome.reason + outcome.response.decode()).replace("\\", "")
    assert "2f7c" not in shown
    assert "b81e0d" not in shown


def test_keeps_the_first_4_kib_of_the_answer() -> None:
    assert classify(500, b"ab" * 5000).response == b"ab" * 2048


@given(status=st.integers(100, 999), content=st.binary())
def test_any_answer_has_a_meaning(status: int, content: bytes) -> None:
    assert classify(status, content).answer is not Answer.REMOVED


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    status=st.sampled_from([200, 400, 404, 500]),
    name=st.sampled_from(sorted(MEANINGS)) | JSON,
    message=JSON,
    details=JSON,
)
def test_any_error_has_a_meaning(status: int, name: object, message: object, details: object) -> None:
    assert classify(status, error(name, message, details=details)).answer is not Answer.REMOVED


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 0.0),
        ("Wed, 01 Jan 2020 00:00:00 -0000", 0.0),
    ],
)
def test_retry_after(header: str, seconds: float) -> None:
    assert retry_after(header) == seconds


def test_retry_after_as_a_date() -> None:
    header = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)

    assert retry_after(header) == pytest.approx(90, abs=5)


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "1.5", "1e9", "9" * 30, "٣", "Wed, 99 Foo 2020", "nan"])
def test_retry_after_junk_is_ignored(header: str | None) -> None:
    assert retry_after(header) is None


@given(st.text())
def test_retry_after_never_raises(header: str) -> None:
    seconds = retry_after(header)

    assert seconds is None or seconds >= 0

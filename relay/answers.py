"""What Velt's answers mean. Pure: an HTTP status and a body in, an Outcome, and what was asked for, out.

https://docs.velt.dev/api-reference/rest-apis/v2/auth/remove-permissions documents one success and one error; what the
other statuses mean is taken from the pages of Velt's neighbouring endpoints, whose errors carry gRPC's names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from relay.access import Access
from relay.model import Answer, Outcome, Resource

KEPT_ANSWER = 4096
LONGEST_EXCERPT = 300

#: Velt's `error.status` -> what it means for a removal.
MEANINGS = {
    "UNAUTHENTICATED": Answer.UNAUTHORIZED,
    "NOT_FOUND": Answer.ABSENT,
    "PERMISSION_DENIED": Answer.REFUSED,
    "INVALID_ARGUMENT": Answer.REFUSED,
    "FAILED_PRECONDITION": Answer.REFUSED,
    "ALREADY_EXISTS": Answer.REFUSED,
    "OUT_OF_RANGE": Answer.REFUSED,
    "UNIMPLEMENTED": Answer.REFUSED,
    "RESOURCE_EXHAUSTED": Answer.RETRY,
    "INTERNAL": Answer.RETRY,
    "UNAVAILABLE": Answer.RETRY,
    "DEADLINE_EXCEEDED": Answer.RETRY,
    "ABORTED": Answer.RETRY,
    "CANCELLED": Answer.RETRY,
    "UNKNOWN": Answer.RETRY,
    "DATA_LOSS": Answer.RETRY,
}

#: The status that an HTTP code stands for where Velt's error names none (after Firebase's callable functions).
#: No 404: any web server says that of an address it does not know, and NOT_FOUND would end the removal.
STATUS_OF_CODE = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}

#: 4xx that pass by themselves.
PASSING = (408, 425, 429)

#: 4xx that say something of the request itself, whoever answers. Any other one without Velt's error is a proxy's or a
#: firewall's word about all calls.
ABOUT_THE_REQUEST = (400, 413, 414, 422, 431)

_NAMES_A_KEY = re.compile(r"api[ _-]?key|auth[ _-]?token", re.IGNORECASE)


def classify(status: int, content: bytes, *, keys: Collection[str] = (), ids: Collection[str] = ()) -> Outcome:
    """What the answer says about the removal; `retry_after` is left to the caller, who has the headers.

    `keys` are cut out of whatever is quoted. `ids` are the ids of the request: a document called "api-key" in a
    message is no sign of trouble with the key.
    """
    answer = _parse(content)
    outcome = (
        _judge_redirect(status)
        or _judge_error(status, answer.get("error"), keys, ids)
        or _judge_success(status, answer, keys)
        or _judge_stranger(status, excerpt(content.decode("utf-8", "replace"), keys))
    )
    return replace(outcome, http_status=status, response=without_keys(content, keys)[:KEPT_ANSWER])


def access_of(content: bytes, organization_id: str) -> dict[str, dict[Resource, Access]]:
    """What an answer of permissions/get about one organization says: by user id, the access to each resource.

    https://docs.velt.dev/api-reference/rest-apis/v2/auth/get-permissions: an unknown document or folder makes the
    answer a NOT_FOUND, whose details have the same shape. Whatever has another shape is left out: it tells nothing.
    """
    answer = _parse(content)
    told = _object(answer.get("result")).get("data") or _object(answer.get("error")).get("details")
    return {user: _access_of_one(_object(given), organization_id) for user, given in _object(told).items()}


def _access_of_one(given: dict[str, Any], organization_id: str) -> dict[Resource, Access]:
    found = {}
    organization = _object(given.get("organization")).get(organization_id)
    if isinstance(organization, dict):
        found[Resource("organization", organization_id)] = _access(organization)
    for kind in ("document", "folder"):
        for identifier, entry in _object(given.get(f"{kind}s")).items():
            if isinstance(entry, dict):
                found[Resource(kind, identifier, organization_id)] = _access(entry)
    return found


def _access(entry: dict[str, Any]) -> Access:
    role, access_type, error_code, error = (
        excerpt(_text(entry.get(name))) or None for name in ("accessRole", "accessType", "errorCode", "error")
    )
    return Access(role, access_type, error_code, error)


def without_keys(content: bytes, keys: Collection[str]) -> bytes:
    """The body of an answer with the keys cut out."""
    for form in _forms(keys):
        content = content.replace(form.encode(), b"[key]")
    return content


def excerpt(text: str, keys: Collection[str] = ()) -> str:
    """`text` in one line, without the keys and control characters, cut to what an operator reads."""
    for form in _forms(keys):
        text = text.replace(form, "[key]")
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return text if len(text) <= LONGEST_EXCERPT else text[: LONGEST_EXCERPT - 1] + "…"


def retry_after(header: str | None) -> float | None:
    """Seconds from now, of a `Retry-After` header (RFC 9110 10.2.3: seconds or a date); None for junk."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _judge_redirect(status: int) -> Outcome | None:
    if not 300 <= status < 400:
        return None
    return Outcome(Answer.RETRY, f"HTTP {status}: redirects are not followed; check VELT_BASE_URL", down=True)


def _judge_error(status: int, error: object, keys: Collection[str], ids: Collection[str]) -> Outcome | None:
    """Velt's own error, `{"error": {"status", "message", "details"?}}`: its status counts before the HTTP code."""
    if not isinstance(error, dict):
        return None
    named = _text(error.get("status"))
    name = named if named in MEANINGS else STATUS_OF_CODE.get(status)
    if name is None:
        return None
    message = _text(error.get("message"))
    meaning = MEANINGS[name]
    # A missing header is INVALID_ARGUMENT, a bad key PERMISSION_DENIED or NOT_FOUND: only the message tells.
    if status == 401 or (meaning is not Answer.RETRY and _blames_a_key(message, ids)):
        meaning = Answer.UNAUTHORIZED
    elif meaning is not Answer.UNAUTHORIZED and _all_not_found(error.get("details")):
        meaning = Answer.ABSENT
    retry = meaning is Answer.RETRY
    return Outcome(
        meaning,
        f"Velt answered HTTP {status} {name}: {excerpt(message, keys) or 'no message'}",
        velt_status=named or None,
        down=retry and name == "UNAVAILABLE",
        unsure=retry and name != "RESOURCE_EXHAUSTED",
    )


def _judge_success(status: int, answer: dict[str, Any], keys: Collection[str]) -> Outcome | None:
    result = answer.get("result")
    if not 200 <= status < 300 or "error" in answer or not isinstance(result, dict):
        return None
    if result.get("status") != "success":
        return None
    return Outcome(Answer.REMOVED, excerpt(_text(result.get("message")), keys) or "success")


def _judge_stranger(status: int, told: str) -> Outcome:
    """An answer that is neither Velt's success nor Velt's error: a proxy's, a wrong address's, a broken server's."""
    reason = f"HTTP {status} without an answer of Velt's: {told or 'empty'}"
    if status == 401:
        return Outcome(Answer.UNAUTHORIZED, reason)
    if status == 404:
        return Outcome(Answer.RETRY, f"{reason} (check VELT_BASE_URL)", down=True)
    if status in PASSING:
        return Outcome(Answer.RETRY, reason)
    if status in ABOUT_THE_REQUEST:
        return Outcome(Answer.REFUSED, reason)
    if 400 <= status < 500:
        return Outcome(Answer.RETRY, reason, down=True)
    return Outcome(Answer.RETRY, reason, down=status >= 500, unsure=True)


def _parse(content: bytes) -> dict[str, Any]:
    """The JSON object in `content`; an empty one for anything else."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _blames_a_key(message: str, ids: Collection[str]) -> bool:
    for name in ids:
        if _NAMES_A_KEY.search(name):
            message = message.replace(name, "")
    return _NAMES_A_KEY.search(message) is not None


def _all_not_found(details: object) -> bool:
    """True if `details`, a list of results or a dict of them by id, has failures and each is a "not-found"."""
    entries = list(details.values()) if isinstance(details, dict) else details
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return False
    codes = [_text(entry.get("code")) for entry in entries if entry.get("success") is not True]
    return bool(codes) and all(code.lower().replace("_", "-") == "not-found" for code in codes)


def _forms(keys: Collection[str]) -> set[str]:
    """How a key may be written in a JSON or plain text answer."""
    return {form for key in keys for form in (key, json.dumps(key)[1:-1], key.replace("/", "\\/")) if form}

"""The Velt client: two verbs, `remove` and `permissions`, which never raise, whatever the network or Velt does.

The calls are https://docs.velt.dev/api-reference/rest-apis/v2/auth/remove-permissions and .../get-permissions;
relay/answers.py tells what comes back. Here is the way there: keys, one connection a thread, and a deadline that
nothing on the other side can stretch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from relay.access import Permissions
from relay.answers import access_of, classify, excerpt, retry_after, without_keys
from relay.contracts import first_problem
from relay.errors import RelayError
from relay.line import Deadline, Lines, fits_a_header, read, root
from relay.model import Answer, Outcome, Resource

#: Each call's path, and the schema that its body must keep before it leaves.
REMOVE = ("/v2/auth/permissions/remove", "velt-remove-permissions")
GET = ("/v2/auth/permissions/get", "velt-get-permissions")

MAX_ANSWER = 1 << 20
#: Seconds for connecting to one address, at most.
CONNECT_TIMEOUT = 3.0

#: Velt wants a document or folder in each question. This one stands in where only an organization is asked about.
NO_DOCUMENT = "velt-permission-relay-no-such-document"


def body(user_id: str, resources: Sequence[Resource]) -> dict[str, Any]:
    """The request that takes `resources` from `user_id`, in Velt's shape."""
    return {"data": {"userId": user_id, "permissions": {"resources": [item.as_velt() for item in resources]}}}


def question(user_ids: Sequence[str], resources: Sequence[Resource], *, must_exist: bool) -> dict[str, Any]:
    """The request that asks what these users may open, in Velt's shape; an empty list is left out."""
    documents = [item.id for item in resources if item.type == "document"]
    folders = [item.id for item in resources if item.type == "folder"]
    data: dict[str, Any] = {"organizationId": resources[0].organization.id, "userIds": list(user_ids)}
    data |= {"documentIds": documents or [NO_DOCUMENT]} if documents or not folders else {}
    data |= {"folderIds": folders} if folders else {}
    data |= {} if must_exist else {"skipResourceExistenceValidation": True}
    return {"data": data}


class Velt:
    """Velt's permissions API at `base_url`; use it from as many threads as you like.

    `keys` gives (API key, auth token) and is asked before every call, since both may change while the relay runs.
    A call takes `timeout` seconds at most, whatever the other side does. Resolving the name and connecting may outlast
    it, but then nothing is sent. ValueError for an impossible URL.
    """

    def __init__(self, base_url: str, keys: Callable[[], tuple[str, str]], *, timeout: float = 15.0) -> None:
        self._base_url = base_url.rstrip("/")
        self._host = urlsplit(base_url).hostname
        self._keys = keys
        self._timeout = timeout
        self._connect_timeout = min(CONNECT_TIMEOUT, timeout)
        self._lines = Lines()

    def __repr__(self) -> str:
        return f"Velt({self._host!r})"

    def remove(self, user_id: str, resources: Sequence[Resource]) -> Outcome:
        """Ask Velt to take `resources`, at most as many as the schema allows, from `user_id`.

        Never raises: whatever comes of it is an Outcome.
        """
        ids = {user_id}.union(*({item.id, item.organization_id or ""} for item in resources))
        return self._ask(REMOVE, body(user_id, resources), ids)[0]

    def permissions(
        self, user_ids: Sequence[str], resources: Sequence[Resource], *, must_exist: bool = False
    ) -> Permissions:
        """Ask Velt what these users may open of one organization; the organization's own answer comes along.

        `resources`, one at least: that organization, and what is in it. `must_exist`: an unknown document or folder
        makes the whole answer a NOT_FOUND, which says which; otherwise it is answered for like the others. Never
        raises: a failure is in `outcome`.
        """
        asked = question(user_ids, resources, must_exist=must_exist)
        organization = resources[0].organization.id
        outcome, content = self._ask(GET, asked, {*user_ids, organization, *(item.id for item in resources)})
        if outcome.answer in (Answer.REMOVED, Answer.ABSENT):  # success, or NOT_FOUND with what is known
            return Permissions(outcome, access_of(content, organization))
        return Permissions(outcome)

    def key_digest(self) -> str:
        """16 hex digits that name the two keys in use without telling them. Raises what `keys` raises."""
        return hashlib.sha256("\n".join(self._keys()).encode()).hexdigest()[:16]

    def close(self) -> None:
        """Close the connections of all threads."""
        self._lines.close()

    def _ask(self, call: tuple[str, str], request_body: dict[str, Any], ids: set[str]) -> tuple[Outcome, bytes]:
        """What the call came to, and the whole body of Velt's answer without the keys (b"" where there is none)."""
        path, schema = call
        problem = first_problem(schema, request_body)
        if problem is not None:
            return Outcome(Answer.REFUSED, f"The request would not be valid: {problem}"), b""
        try:
            keys = self._keys()
        except (RelayError, OSError) as error:
            return Outcome(Answer.UNAUTHORIZED, f"The keys to Velt cannot be read: {error}"), b""
        for name, key in zip(("API key", "auth token"), keys, strict=True):
            if not fits_a_header(key):
                reason = (
                    f"The Velt {name} is empty or holds what no HTTP header may: a line break, a space at an end, "
                    "a control character or one outside Latin-1"
                )
                return Outcome(Answer.UNAUTHORIZED, reason), b""
        return self._call(path, json.dumps(request_body).encode(), keys, ids)

    def _call(self, path: str, content: bytes, keys: tuple[str, str], ids: set[str]) -> tuple[Outcome, bytes]:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "velt-permission-relay",
            "x-velt-api-key": keys[0],
            "x-velt-auth-token": keys[1],
        }
        line = self._lines.here()
        with Deadline(self._timeout) as deadline:
            line.deadline = deadline
            try:
                request = requests.Request("POST", self._base_url + path, headers=headers, data=content).prepare()
                response = line.send(request, stream=True, timeout=(self._connect_timeout, self._timeout))
            except (OSError, HTTPError, ValueError) as error:
                return self._unanswered(deadline, error, keys), b""
            with response:
                outcome, answer = _outcome(response, keys, ids)
        if deadline.over:
            return replace(self._too_late(), http_status=response.status_code), b""
        return outcome, answer

    def _unanswered(self, deadline: Deadline, error: Exception, keys: tuple[str, str]) -> Outcome:
        cause = excerpt(root(error), keys)
        if not deadline.sent:
            reason = f"Velt could not be reached at {self._host}: {cause}"
            return Outcome(Answer.RETRY, reason, down=True)
        if deadline.over or isinstance(error, requests.Timeout):  # the socket's own may be a moment earlier
            return self._too_late()
        return Outcome(Answer.RETRY, f"The connection to Velt broke before the answer: {cause}", down=True, unsure=True)

    def _too_late(self) -> Outcome:
        return Outcome(Answer.RETRY, f"Velt did not answer within {self._timeout:g} s", down=True, unsure=True)


def _outcome(response: requests.Response, keys: Collection[str], ids: Collection[str]) -> tuple[Outcome, bytes]:
    status = response.status_code
    try:
        content = read(response, MAX_ANSWER)
    except (OSError, HTTPError, ValueError) as error:
        reason = f"Velt's answer, HTTP {status}, could not be read: {excerpt(root(error), keys)}"
        return Outcome(Answer.RETRY, reason, http_status=status, unsure=True), b""
    outcome = classify(status, content, keys=keys, ids=ids)
    if outcome.answer is Answer.RETRY:
        outcome = replace(outcome, retry_after=retry_after(response.headers.get("Retry-After")))
    return outcome, without_keys(content, keys)

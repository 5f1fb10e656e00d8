from __future__ import annotations

import pytest

from relay.contracts import load
from relay.errors import ConfigError, Problem
from relay.model import MAX_RESOURCES, Answer, Resource
from relay.velt import Velt, body

ACME = Resource("organization", "acme")
ROADMAP = Resource("document", "roadmap", "acme")
FINANCE = Resource("folder", "finance", "acme")

# Nothing listens there: whatever is sent in spite of a bad key or body ends as RETRY.
NOWHERE = "http://127.0.0.1:9"


def keys() -> tuple[str, str]:
    return "test-key", "test-token"


def test_the_body_is_in_velts_shape() -> None:
    assert body("ada@example.com", [ACME, ROADMAP, FINANCE]) == {
        "data": {
            "userId": "ada@example.com",
            "permissions": {
                "resources": [
                    {"type": "organization", "id": "acme"},
                    {"type": "document", "id": "roadmap", "organizationId": "acme"},
                    {"type": "folder", "id": "finance", "organizationId": "acme"},
                ]
            },
        }
    }


@pytest.mark.parametrize(
    ("user", "resources"),
    [
        pytest.param("", [ACME], id="no user"),
        pytest.param(" ", [ACME], id="blank user"),
        pytest.param("ada", [], id="no resource"),
        pytest.param("ada", [ACME] * (MAX_RESOURCES + 1), id="too many"),
        pytest.param("ada", [Resource("document", "roadmap")], id="document without organization"),
        pytest.param("ada", [Resource("folder", "finance")], id="folder without organization"),
        pytest.param("ada", [Resource("organization", "acme", "acme")], id="organization in an organization"),
        pytest.param("ada", [Resource("document", "", "acme")], id="no id"),
        pytest.param("ada", [Resource("document", "roadmap", "")], id="empty organization"),
        pytest.param("ada", [Resource("location", "roadmap", "acme")], id="unknown type"),
    ],
)
def test_an_invalid_body_is_refused_without_a_call(user: str, resources: list[Resource]) -> None:
    outcome = Velt(NOWHERE, keys).remove(user, resources)

    assert outcome.answer is Answer.REFUSED
    assert outcome.reason.startswith("The request would not be valid: data.")
    assert outcome.http_status is None


def test_the_limit_is_the_schemas() -> None:
    data = load("velt-remove-permissions")["properties"]["data"]

    assert data["properties"]["permissions"]["properties"]["resources"]["maxItems"] == MAX_RESOURCES


@pytest.mark.parametrize("bad", ["", " hush", "hush\n", "hu\nsh", "hu\rsh", "hush€", "hu\x00sh", "\u2028"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_key_that_no_header_can_carry_is_said_to_be(bad: str, place: int) -> None:
    pair = (bad, "fine") if place == 0 else ("fine", bad)

    outcome = Velt(NOWHERE, lambda: pair).remove("ada", [ACME])

    assert outcome.answer is Answer.UNAUTHORIZED
    assert ("API key", "auth token")[place] in outcome.reason
    assert "sh" not in outcome.reason


@pytest.mark.parametrize("error", [OSError("no such file"), ConfigError([Problem("VELT_API_KEY", "is missing")])])
def test_keys_that_cannot_be_read_are_said_to_be(error: Exception) -> None:
    def broken() -> tuple[str, str]:
        raise error

    outcome = Velt(NOWHERE, broken).remove("ada", [ACME])

    assert outcome.answer is Answer.UNAUTHORIZED
    assert str(error) in outcome.reason


def test_the_digest_names_the_keys_without_telling() -> None:
    pair = ["one", "two"]
    velt = Velt(NOWHERE, lambda: (pair[0], pair[1]))
    first = velt.key_digest()

    assert len(first) == 16
    assert int(first, 16)
    assert velt.key_digest() == first
    pair[1] = "three"
    assert velt.key_digest() != first
    pair[:] = ["onet", "wo"]
    assert velt.key_digest() != first


def test_the_repr_tells_no_secret() -> None:
    assert repr(Velt("https://someone:hush@api.example.com", keys)) == "Velt('api.example.com')"


def test_an_impossible_url_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="IPv6"):
        Velt("http://[::1", keys)

"""How the relay proves to Okta who asks: an API token or a service app, against a fake Okta that checks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from joserfc.jwk import ECKey, RSAKey

from relay.directories.base import Status
from relay.directories.okta import OktaDirectory
from relay.errors import LookUpFailed
from tests.fake_okta import FakeOkta
from tests.fake_okta_api import Answer, error


@pytest.fixture
def okta() -> Iterator[FakeOkta]:
    with FakeOkta() as fake:
        yield fake


@pytest.fixture
def make(okta: FakeOkta) -> Iterator[Callable[..., OktaDirectory]]:
    """Makes directories of the fake; `api` has keys of its `api`."""
    made = []

    def build(credential: Callable[[], str] | None = None, **api: Any) -> OktaDirectory:
        given = {"type": "okta", "api": {"url": okta.url, **(api or {"token": {"env": "T"}})}}
        made.append(OktaDirectory("acme", given, credential or (lambda: okta.api_token)))
        return made[-1]

    yield build
    for directory in made:
        directory.close()


@pytest.fixture
def directory(make: Callable[..., OktaDirectory]) -> OktaDirectory:
    return make()


@pytest.fixture
def ada(okta: FakeOkta) -> str:
    return okta.add_user("ada", email="ada@acme.example")


def test_a_token_that_is_refused(okta: FakeOkta, directory: OktaDirectory, ada: str) -> None:
    okta.script(error("E0000011"))

    with pytest.raises(LookUpFailed, match="401, E0000011: Invalid token provided: the credential is refused") as found:
        directory.look_up(ada)
    assert okta.api_token not in str(found.value)
    assert len(okta.requests) == 1, "the same token is not tried twice"


def test_a_token_that_changed_is_tried(okta: FakeOkta, make: Callable[..., OktaDirectory], ada: str) -> None:
    tokens = iter(["old", okta.api_token, okta.api_token])

    assert make(lambda: next(tokens)).look_up(ada).status is Status.ACTIVE


def test_a_scope_that_is_lacking_is_named(okta: FakeOkta, directory: OktaDirectory) -> None:
    okta.scopes.discard("okta.groups.read")

    with pytest.raises(LookUpFailed, match=r"403, E0000006: .*lacks a permission; it needs okta\.groups\.read"):
        directory.group("00g1")


def test_no_token_at_all(okta: FakeOkta, make: Callable[..., OktaDirectory]) -> None:
    with pytest.raises(LookUpFailed, match="the API token is not set"):
        make(lambda: "").look_up("00u1")
    assert okta.requests == []


KEYS = [
    pytest.param(lambda: RSAKey.generate_key(2048), id="RSA"),
    pytest.param(lambda: ECKey.generate_key("P-256"), id="EC"),
    pytest.param(lambda: ECKey.generate_key("P-384"), id="EC 384"),
]
TOKEN = "/oauth2/v1/token"


@pytest.fixture
def key(request: pytest.FixtureRequest) -> RSAKey | ECKey:
    made: RSAKey | ECKey = getattr(request, "param", lambda: ECKey.generate_key("P-256"))()
    return made


@pytest.fixture
def app(okta: FakeOkta, make: Callable[..., OktaDirectory], key: RSAKey | ECKey) -> OktaDirectory:
    okta.trust("0oaRelay", key, "kid-1")
    pem = key.as_pem(private=True).decode()
    return make(lambda: pem, client_id="0oaRelay", private_key={"env": "K"}, key_id="kid-1")


@pytest.mark.parametrize("key", KEYS, indirect=True)
def test_a_service_app_signs_once_and_keeps_its_token(okta: FakeOkta, app: OktaDirectory, ada: str) -> None:
    app.look_up(ada)
    app.look_up(ada)

    assert len(okta.asked(TOKEN)) == 1


def test_a_key_of_one_line(okta: FakeOkta, make: Callable[..., OktaDirectory], ada: str, key: ECKey) -> None:
    okta.trust("0oaRelay", key)
    pem = key.as_pem(private=True).decode().replace("\n", "\\n")

    assert make(lambda: pem, client_id="0oaRelay", private_key={"env": "K"}).look_up(ada).login == "ada"


@pytest.mark.parametrize("skew", [-1500, 1500])
def test_the_clocks_may_differ(okta: FakeOkta, app: OktaDirectory, ada: str, skew: float) -> None:
    okta.skew = skew

    assert app.look_up(ada).status is Status.ACTIVE


def test_a_token_near_its_end_is_not_used(okta: FakeOkta, app: OktaDirectory, ada: str) -> None:
    okta.token_seconds = 60
    app.look_up(ada)
    app.look_up(ada)

    assert len(okta.asked(TOKEN)) == 4, "each look-up asks twice, each time with a new token"


def test_a_revoked_token_is_renewed_once(okta: FakeOkta, app: OktaDirectory, ada: str) -> None:
    app.look_up(ada)
    okta.issued.clear()

    assert app.look_up(ada).status is Status.ACTIVE
    assert len(okta.asked(TOKEN)) == 2

    okta.script(error("E0000011"))
    okta.requests.clear()
    assert app.look_up(ada).status is Status.ACTIVE
    assert len(okta.asked(TOKEN)) == 1


def test_two_refusals_are_one_too_many(okta: FakeOkta, app: OktaDirectory, ada: str) -> None:
    app.look_up(ada)
    okta.requests.clear()
    okta.script(error("E0000011"), Answer(200, {"access_token": "x", "token_type": "Bearer", "expires_in": 3600}))

    with pytest.raises(LookUpFailed, match="the credential is refused"):
        app.look_up(ada)
    assert [request.path for request in okta.requests] == [f"/api/v1/users/{ada}", TOKEN, f"/api/v1/users/{ada}"]


def test_a_scope_that_was_not_granted(okta: FakeOkta, app: OktaDirectory) -> None:
    okta.scopes.discard("okta.logs.read")

    with pytest.raises(LookUpFailed, match="400, invalid_scope: One or more scopes"):
        app.look_up("00u1")


def test_the_wrong_key(okta: FakeOkta, app: OktaDirectory) -> None:
    okta.client_key = ECKey.generate_key("P-256")

    with pytest.raises(LookUpFailed, match=r"401, invalid_client: .*the credential is refused"):
        app.look_up("00u1")


def test_dpop_is_told(okta: FakeOkta, app: OktaDirectory) -> None:
    okta.token_type = "DPoP"

    with pytest.raises(LookUpFailed, match=r"token of type DPoP .* turn off"):
        app.look_up("00u1")


@pytest.mark.parametrize(
    "pem",
    [
        "no key",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",
        RSAKey.generate_key(2048).as_pem(private=False).decode(),
        ECKey.generate_key("secp256k1").as_pem(private=True).decode(),
        ECKey.generate_key("P-256").as_pem(private=True, password="x").decode(),
    ],
    ids=["text", "broken", "public", "curve", "passphrase"],
)
def test_a_key_that_cannot_be_used_is_told(okta: FakeOkta, make: Callable[..., OktaDirectory], pem: str) -> None:
    directory = make(lambda: pem, client_id="0oaRelay", private_key={"env": "K"})

    with pytest.raises(LookUpFailed, match="wanted is a private key in PEM, RSA or EC") as found:
        directory.look_up("00u1")
    assert pem not in str(found.value)
    assert okta.requests == []

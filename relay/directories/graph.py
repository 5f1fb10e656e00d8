"""Microsoft Graph for one application: its token, by msal, and its pages.

https://learn.microsoft.com/graph/auth-v2-service
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from relay.answers import excerpt
from relay.directories.http import Client, Reader, Response
from relay.errors import LookUpFailed
from relay.sources.base import clean_or

GRAPH_URL = "https://graph.microsoft.com/v1.0"
LOGIN_URL = "https://login.microsoftonline.com"

#: The permissions of the application that questions need.
USERS, GROUPS = "User.Read.All", "GroupMember.Read.All"

USER, GROUP = "#microsoft.graph.user", "#microsoft.graph.group"
ACCOUNT_FIELDS = "id,userPrincipalName,mail,accountEnabled"
GROUP_FIELDS = "id,displayName"

#: Objects on a page, the most that Graph allows.
PAGE = 999

#: Seconds between two tokens that are asked for because Graph refuses. A new one helps when the old one was revoked or
#: an administrator has just granted a permission, which tokens hold; else it would be one a call, for ever.
RENEW = 60.0

#: Graph's code for "there is none". A 404 without it comes from another server, and says nothing of anybody.
NOT_FOUND = "ResourceNotFound"

Item: TypeAlias = dict[str, Any]

# what msal raises where an answer has not the shape that it expects
_NOT_UNDERSTOOD = (ValueError, KeyError, TypeError, AttributeError)

_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL)
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


def client_of(
    graph: Mapping[str, Any], credential: Callable[[], str], *, read_timeout: float = 15.0, deadline: float = 20.0
) -> Client:
    """The client of `sources.<name>.graph` in relay.yaml; no question is asked yet. Times are in seconds."""
    url = graph.get("url", GRAPH_URL)
    proof = Application(graph, url, credential)
    return Client("Microsoft Graph", url, proof, read_timeout=read_timeout, deadline=deadline)


class Application:
    """What proves to Graph that it is our application that asks: an access token, kept until near its end.

    `credential` gives the client secret, or with `graph.certificate` a PEM with an RSA key and its certificate.
    """

    def __init__(self, graph: Mapping[str, Any], url: str, credential: Callable[[], str]) -> None:
        self._graph = graph
        self._scope = f"{_origin(url)}/.default"
        self._login = graph.get("login_url", LOGIN_URL)
        self._credential = credential
        self._lock = threading.Lock()
        self._made_with = ""
        self._made: Any = None
        self._renewed = -RENEW

    def __call__(self, refused: Mapping[str, str] | None) -> Mapping[str, str]:
        """The header with a token; another one than was refused, at most once a minute. Raises LookUpFailed."""
        with self._lock:
            credential = self._credential()
            try:
                if self._made is None or credential != self._made_with:
                    self._made, self._made_with = self._application(credential), credential
                if refused is not None and time.monotonic() - self._renewed >= RENEW:
                    self._renewed = time.monotonic()
                    self._made.remove_tokens_for_client()
                return {"Authorization": f"Bearer {self._token()}"}
            except LookUpFailed as error:
                told = excerpt(str(error), {credential} - {""})
                raise LookUpFailed(told, error.retry_after, lasting=error.lasting) from None

    def _token(self) -> str:
        try:
            token = self._made.acquire_token_for_client([self._scope])["access_token"]
        except _NOT_UNDERSTOOD:
            token = None
        if not isinstance(token, str):
            raise LookUpFailed("Microsoft's login gave an answer that holds no access token")
        return token

    def _application(self, credential: str) -> Any:
        """msal's application. It asks the login for its addresses at once."""
        import msal  # loaded here: web processes know the directories and never ask them

        parts = urlsplit(self._login)
        try:
            return msal.ConfidentialClientApplication(
                self._graph["client_id"],
                client_credential=_proof(credential) if "certificate" in self._graph else _secret(credential),
                # msal insists on https in this name; _Http asks our login_url whatever it is
                authority=f"https://{parts.netloc}/{self._graph['tenant']}",
                # relay.yaml says whom to trust: Microsoft's list of logins is not asked, it lacks private ones
                instance_discovery=False,
                http_client=_Http(Client("Microsoft's login", self._login)),
            )
        except _NOT_UNDERSTOOD:
            raise LookUpFailed(f"Microsoft's login at {parts.hostname} gave no addresses for the tenant") from None


class _Http:
    """What msal asks with: our client, with its timeouts and without the environment's proxies.

    Of msal's addresses only the path counts, so that the secret goes to login_url and nowhere else, whatever host the
    login's own description of itself names. What is not a success is LookUpFailed, with Microsoft's AADSTS code.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def get(self, url: str, **given: Any) -> _HttpAnswer:
        return self._ask("GET", url, given)

    def post(self, url: str, **given: Any) -> _HttpAnswer:
        return self._ask("POST", url, given)

    def close(self) -> None:
        self._client.close()

    def _ask(self, method: str, url: str, given: Mapping[str, Any]) -> _HttpAnswer:
        path = urlsplit(url).path
        headers = {name: str(value) for name, value in (given.get("headers") or {}).items()}
        answer = self._client.call(method, path, params=given.get("params"), form=given.get("data"), headers=headers)
        return _HttpAnswer(answer)


class _HttpAnswer:
    """A success in the shape that msal reads."""

    def __init__(self, answer: Response) -> None:
        self.status_code = answer.status
        self.text = json.dumps(answer.body)
        self.headers = dict(answer.headers)

    def raise_for_status(self) -> None:
        """Nothing: failures have been raised."""


def pages(client: Reader, where: str, needs: str, **params: str | int) -> Iterator[list[Item]]:
    """The items of each page at `where`; no page where there is no such thing. Raises LookUpFailed."""
    answer = found(client, where, needs, **params)
    while answer is not None:
        yield items(answer)
        follow = answer.get("@odata.nextLink")
        answer = following(client, follow, needs) if follow else None


def found(client: Reader, where: str, needs: str, **params: str | int) -> Item | None:
    """The object at `where`, None where Graph says that there is none. Raises LookUpFailed.

    Keyword arguments are query parameters without their `$`.
    """
    answer = client.get(where, {f"${name}": value for name, value in params.items()} or None, needs=needs)
    if answer.status == 404 and not answer.code.endswith(NOT_FOUND):
        raise LookUpFailed("Microsoft Graph answered HTTP 404, and not with its own code; is graph.url right?")
    if answer.status == 404:
        return None
    if not isinstance(answer.body, dict):
        raise LookUpFailed("Microsoft Graph gave an answer that is not a JSON object")
    return answer.body


def following(client: Reader, link: object, needs: str) -> Item:
    """The page behind a link; one that is not there is a failure, not the end of the list. Raises LookUpFailed."""
    answer = found(client, str(link), needs)
    if answer is None:
        raise LookUpFailed("Microsoft Graph gave a link to a next page that is not there")
    return answer


def items(answer: Item) -> list[Item]:
    """The objects of one page. Raises LookUpFailed."""
    value = answer.get("value")
    if not isinstance(value, list) or not all(
        isinstance(item, dict) and clean_or(item.get("id"), "") for item in value
    ):
        raise LookUpFailed("Microsoft Graph gave a page whose items are not objects with an id")
    return value


def is_a(odata_type: str, item: Item) -> bool:
    """Whether an object is a USER or a GROUP; one that does not say is neither."""
    return str(item.get("@odata.type")).lower() == odata_type


def _secret(credential: str) -> str:
    if not credential:
        raise LookUpFailed("Microsoft Graph was not asked: the application's client secret is empty", lasting=True)
    return credential


def _proof(pem: str) -> dict[str, str]:
    """The key and the certificate of a PEM, as msal takes them; it computes the thumbprint. Raises LookUpFailed."""
    pem = pem.replace("\\n", "\n")  # as environments write a line break that cannot hold one
    key, certificate = _KEY.search(pem), _CERTIFICATE.search(pem)
    try:
        good = key is not None and certificate is not None and _is_pair(key[0].encode(), certificate[0].encode())
    except (ValueError, TypeError):  # TypeError: the key is encrypted
        good = False
    if key is None or certificate is None or not good:
        raise LookUpFailed(
            "Microsoft Graph was not asked: wanted in graph.certificate is a PEM that holds an RSA private key "
            "without a passphrase, and the certificate that belongs to it",
            lasting=True,
        )
    return {"private_key": key[0], "public_certificate": certificate[0]}


def _is_pair(key: bytes, certificate: bytes) -> bool:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from cryptography.x509 import load_pem_x509_certificate

    private = load_pem_private_key(key, None)
    return (
        isinstance(private, RSAPrivateKey)
        and private.public_key() == load_pem_x509_certificate(certificate).public_key()
    )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"

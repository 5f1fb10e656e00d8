"""What the Entra directory asks Microsoft Graph and makes of its answers, over real HTTP."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from relay import directories
from relay.directories import graph as graph_module
from relay.directories.base import Account, Changes, Group, Status
from relay.directories.entra import EntraDirectory
from relay.errors import LookUpFailed, Unreadable
from relay.model import Kind, now
from tests.fake_graph import FakeGraph
from tests.fake_graph_login import CLIENT_SECRET


@pytest.fixture
def fake() -> Iterator[FakeGraph]:
    with FakeGraph() as made:
        yield made


@pytest.fixture
def waited() -> list[float]:
    """The seconds that were waited before a page was asked for again."""
    return []


@pytest.fixture
def directory(fake: FakeGraph, waited: list[float]) -> Iterator[EntraDirectory]:
    made = EntraDirectory("entra", fake.source(), lambda: CLIENT_SECRET, waited.append)
    yield made
    made.close()


def directory_with(fake: FakeGraph, credential: str, **more: Any) -> EntraDirectory:
    given = fake.source()
    return EntraDirectory("entra", {**given, "graph": {**given["graph"], **more}}, lambda: credential)


# accounts


def test_an_active_user_with_all_groups(fake: FakeGraph, directory: EntraDirectory) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example", "ada.l@acme.example")
    inner, _ = fake.tenant.add_group("Compilers")
    outer, _ = fake.tenant.add_group("Engineering")
    fake.tenant.add_group("Sales")
    fake.tenant.join(ada, inner)
    fake.tenant.join(inner, outer)
    before = now()
    account = directory.look_up(ada)
    assert before <= account.fetched_at <= now()
    assert account == Account(
        ada,
        Status.ACTIVE,
        account.fetched_at,
        login="ada@acme.example",
        email="ada.l@acme.example",
        groups=(Group(inner, "Compilers"), Group(outer, "Engineering")),
    )


def test_what_becomes_of_a_user(fake: FakeGraph, directory: EntraDirectory) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example", mail=None)
    eng, _ = fake.tenant.add_group("Engineering")
    fake.tenant.join(ada, eng)
    assert directory.look_up(ada).email is None
    fake.tenant.disable(ada)
    disabled = directory.look_up(ada)
    assert disabled.status is Status.DEACTIVATED
    assert disabled.groups == (Group(eng, "Engineering"),)
    fake.tenant.soft_delete(ada)
    deleted = directory.look_up(ada)
    assert (deleted.status, deleted.login, deleted.email) == (Status.DELETED, "ada@acme.example", None)
    assert deleted.groups == ()
    fake.tenant.restore(ada)
    fake.tenant.enable(ada)
    assert directory.look_up(ada).status is Status.ACTIVE
    fake.tenant.purge(ada)
    assert directory.look_up(ada).status is Status.GONE


def test_what_is_no_user(fake: FakeGraph, directory: EntraDirectory) -> None:
    team, _ = fake.tenant.add_group("Team", unified=True)
    assert directory.look_up(team).status is Status.GROUP
    fake.tenant.delete_group(team)
    assert directory.look_up(team).status is Status.GROUP
    fake.tenant.purge_group(team)
    assert directory.look_up(team).status is Status.GONE
    assert directory.look_up(fake.tenant.add_device()).status is Status.GONE


def test_a_user_deleted_between_two_questions(fake: FakeGraph, directory: EntraDirectory) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example")
    fake.tenant.lag(1)
    fake.tenant.soft_delete(ada)
    assert directory.look_up(ada).status is Status.DELETED


def test_the_truth_may_lag(fake: FakeGraph, directory: EntraDirectory) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example")
    eng, _ = fake.tenant.add_group("Engineering")
    fake.tenant.join(ada, eng)
    fake.tenant.lag(2)
    fake.tenant.leave(ada, eng)
    assert directory.look_up(ada).groups == (Group(eng, "Engineering"),)
    assert directory.look_up(ada).groups == ()


def test_names_of_groups_that_were_asked_for(fake: FakeGraph, directory: EntraDirectory) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example")
    eng, _ = fake.tenant.add_group("Engineering")
    sales, _ = fake.tenant.add_group("Sales")
    old, _ = fake.tenant.add_group("Old")
    fake.tenant.join(ada, eng)
    fake.tenant.delete_group(old)
    for _ in range(3):
        account = directory.look_up(ada, groups=[eng, sales, old])
        assert account.names == {eng: "Engineering", sales: "Sales"}
    asked = [path for _, path in fake.asked if "/groups/" in path and "transitive" not in path]
    assert len(asked) == 2, "a burst about one group is one question"
    assert directory.look_up("11111111-2222-4333-8444-555555555555", groups=[eng]).names == {eng: "Engineering"}


@pytest.mark.parametrize("identifier", ["", "a/b", "ada@acme.example", "x?$select=id", "../groups", "a" * 65, "a\n"])
def test_an_id_that_is_none_asks_nothing(fake: FakeGraph, directory: EntraDirectory, identifier: str) -> None:
    for ask in (directory.look_up, directory.group, lambda given: list(directory.members(given))):
        with pytest.raises(Unreadable):
            ask(identifier)
    assert fake.asked == []


# groups and lists


def test_a_group_and_its_people(fake: FakeGraph, directory: EntraDirectory) -> None:
    people = [fake.tenant.add_user(f"p{number}@acme.example")[0] for number in range(5)]
    inner, _ = fake.tenant.add_group("Compilers")
    outer, _ = fake.tenant.add_group("Engineering", unified=True)
    for person in people[:3]:
        fake.tenant.join(person, inner)
    for member in (*people[3:], inner, fake.tenant.add_device()):
        fake.tenant.join(member, outer)
    fake.page_size = 2
    found = list(directory.members(outer))
    assert sorted(person for page in found for person in page) == sorted(people)
    assert len(found) > 2
    assert directory.group(outer) == Group(outer, "Engineering")
    fake.tenant.delete_group(outer)
    assert directory.group(outer) is None
    assert list(directory.members(outer)) == []


def test_every_account_and_group(fake: FakeGraph, directory: EntraDirectory) -> None:
    people = [fake.tenant.add_user(f"p{number}@acme.example")[0] for number in range(5)]
    groups = [fake.tenant.add_group(f"g{number}")[0] for number in range(3)]
    fake.tenant.disable(people[0])
    fake.tenant.soft_delete(people[1])
    fake.page_size = 2
    accounts = {account.id: account for page in directory.accounts() for account in page}
    assert accounts.keys() == set(people) - {people[1]}
    assert accounts[people[0]].status is Status.DEACTIVATED
    assert accounts[people[2]].login == "p2@acme.example"
    assert [group.id for page in directory.groups() for group in page] == groups
    assert list(directory.app_users("x")) == []


def test_a_list_that_breaks_off_is_no_shorter_list(fake: FakeGraph, directory: EntraDirectory) -> None:
    for number in range(3):
        fake.tenant.add_user(f"p{number}@acme.example")
    fake.page_size = 2
    pages = directory.accounts()
    next(pages)
    fake.fail(1, 404, "Request_ResourceNotFound")
    with pytest.raises(LookUpFailed, match="next page that is not there"):
        next(pages)


# trouble


def test_throttling_and_trouble_are_failures(fake: FakeGraph, directory: EntraDirectory) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example")
    fake.throttle(1, retry_after=17)
    with pytest.raises(LookUpFailed, match="429") as throttled:
        directory.look_up(ada)
    assert throttled.value.retry_after == 17
    fake.fail(1)
    with pytest.raises(LookUpFailed, match="503"):
        directory.look_up(ada)
    assert directory.look_up(ada).status is Status.ACTIVE


def test_a_404_of_somebody_else_is_no_deletion(fake: FakeGraph) -> None:
    wrong = directory_with(fake, CLIENT_SECRET, url=f"{fake.url}/v1.0/directory")
    with pytest.raises(LookUpFailed, match="BadRequest"):
        wrong.look_up("11111111-2222-4333-8444-555555555555")
    fake.fail(1, status=404)
    right = directory_with(fake, CLIENT_SECRET)
    with pytest.raises(LookUpFailed, match=r"graph\.url"):
        right.look_up("11111111-2222-4333-8444-555555555555")


def test_a_server_that_is_not_there() -> None:
    with FakeGraph() as gone:
        source = gone.source()
    with pytest.raises(LookUpFailed, match=r"Microsoft's login at 127\.0\.0\.1 could not be reached"):
        EntraDirectory("entra", source, lambda: CLIENT_SECRET).look_up("x")


# tokens


def test_one_token_for_many_questions_and_a_new_one_when_it_is_refused(
    fake: FakeGraph, directory: EntraDirectory
) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example")
    for _ in range(3):
        directory.look_up(ada)
    assert fake.login.asked == 1
    fake.login.revoke()
    assert directory.look_up(ada).status is Status.ACTIVE
    assert fake.login.asked == 2


def test_a_refusal_does_not_ask_for_a_token_each_time(fake: FakeGraph, directory: EntraDirectory) -> None:
    fake.fail(8, status=403)
    for _ in range(4):
        with pytest.raises(LookUpFailed, match=r"it needs User\.Read\.All"):
            directory.look_up("x")
    assert fake.login.asked == 2


def test_a_token_that_ends_is_renewed(fake: FakeGraph, directory: EntraDirectory) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example")
    fake.login.lifetime = 1
    directory.look_up(ada)
    directory.look_up(ada)
    assert fake.login.asked > 1


def test_a_secret_that_changes_is_used_at_once(fake: FakeGraph) -> None:
    secrets = iter(["wrong", CLIENT_SECRET])
    current = [next(secrets)]
    directory = EntraDirectory("entra", fake.source(), lambda: current[0])
    with pytest.raises(LookUpFailed, match="AADSTS7000215") as refused:
        directory.look_up("x")
    assert "wrong" not in str(refused.value).replace("it is wrong", "")
    current[0] = next(secrets)
    assert directory.look_up("x").status is Status.GONE


def test_a_login_that_repeats_the_secret_does_not_make_us_tell_it(fake: FakeGraph) -> None:
    def repeat(form: Mapping[str, str], host: str) -> tuple[int, dict[str, Any]]:
        return 401, {"error": "invalid_client", "error_description": f"AADSTS1: {form['client_secret']}"}

    fake.login.token = repeat  # type: ignore[method-assign]
    with pytest.raises(LookUpFailed, match="AADSTS1") as refused:
        directory_with(fake, "acme-other-secret").look_up("x")
    assert "acme-other-secret" not in str(refused.value)


def test_the_secret_goes_to_the_login_of_relay_yaml_only(fake: FakeGraph) -> None:
    fake.login.configuration = lambda host: (  # type: ignore[method-assign]
        200,
        {
            "token_endpoint": f"https://evil.example/{fake.source()['graph']['tenant']}/oauth2/v2.0/token",
            "authorization_endpoint": "https://evil.example/x/authorize",
            "issuer": "https://evil.example",
        },
    )
    assert directory_with(fake, CLIENT_SECRET).look_up("x").status is Status.GONE


@pytest.mark.parametrize("answer", [{}, {"access_token": None}, {"token_type": "Bearer"}, [], "x"])
def test_a_login_that_talks_nonsense(fake: FakeGraph, answer: Any) -> None:
    fake.login.token = lambda form, host: (200, answer)  # type: ignore[method-assign]
    with pytest.raises(LookUpFailed, match="access token"):
        directory_with(fake, CLIENT_SECRET).look_up("x")


@pytest.mark.parametrize("answer", [{}, {"token_endpoint": 7}, [], "x"])
def test_a_login_whose_description_is_nonsense(fake: FakeGraph, answer: Any) -> None:
    fake.login.configuration = lambda host: (200, answer)  # type: ignore[method-assign]
    with pytest.raises(LookUpFailed, match="Microsoft's login"):
        directory_with(fake, CLIENT_SECRET).look_up("x")


def test_a_tenant_that_is_not_there(fake: FakeGraph) -> None:
    with pytest.raises(LookUpFailed, match="Microsoft's login"):
        directory_with(fake, CLIENT_SECRET, tenant="elsewhere").look_up("x")


def test_no_secret_is_told(fake: FakeGraph) -> None:
    with pytest.raises(LookUpFailed, match="client secret is empty"):
        directory_with(fake, "").look_up("x")


def test_a_certificate_instead_of_a_secret(fake: FakeGraph) -> None:
    pem = certificate()
    fake.login.certificate = pem
    for written in (pem, pem.replace("\n", "\\n"), f"subject=O = Acme, CN = relay\n{pem}"):
        directory = directory_with(fake, written, certificate={"env": "ENTRA_CERTIFICATE"})
        assert directory.look_up("x").status is Status.GONE
    stranger = directory_with(fake, certificate(), certificate={"env": "ENTRA_CERTIFICATE"})
    with pytest.raises(LookUpFailed, match="AADSTS"):
        stranger.look_up("x")


@pytest.mark.parametrize("what", ["nothing", "junk", "no key", "no certificate", "another key", "elliptic", "locked"])
def test_a_certificate_that_is_none(fake: FakeGraph, what: str) -> None:
    pem = certificate()
    key, _, rest = pem.partition("-----BEGIN CERTIFICATE-----")
    bad = {
        "nothing": "",
        "junk": "-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----" + rest,
        "no key": pem.removeprefix(key),
        "no certificate": key,
        "another key": certificate().partition("-----BEGIN CERTIFICATE-----")[0] + pem.removeprefix(key),
        "elliptic": certificate(ec.generate_private_key(ec.SECP256R1())),
        "locked": certificate(encryption=serialization.BestAvailableEncryption(b"x")),
    }
    with pytest.raises(LookUpFailed, match=r"wanted in graph\.certificate is a PEM"):
        directory_with(fake, bad[what], certificate={"env": "ENTRA_CERTIFICATE"}).look_up("x")
    assert fake.login.asked == 0


def certificate(key: Any = None, encryption: Any = None) -> str:
    """A PEM with a new private key and a certificate that it has signed itself."""
    key = key or rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "acme")])
    today = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(today)
        .not_valid_after(today + datetime.timedelta(days=365))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption or serialization.NoEncryption()
    )
    return str(private.decode()) + made.public_bytes(serialization.Encoding.PEM).decode()


# changes


def read(directory: EntraDirectory, cursor: str | None = None) -> tuple[list[Changes], str]:
    pages = list(directory.changes(cursor, 0))
    assert [page.last for page in pages] == [False] * (len(pages) - 1) + [True]
    return pages, pages[-1].cursor


def told(pages: list[Changes]) -> set[tuple[Kind, str | None, str | None]]:
    return {(event.kind, event.subject, event.group_id) for page in pages for event in page.events}


def test_a_first_pass_lists_all_that_is_there(fake: FakeGraph, directory: EntraDirectory) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example")
    bob, _ = fake.tenant.add_user("bob@acme.example", mail=None)
    fake.tenant.disable(bob)
    inner, _ = fake.tenant.add_group("Compilers")
    outer, _ = fake.tenant.add_group("Engineering")
    for member, group in ((ada, inner), (bob, outer), (inner, outer), (fake.tenant.add_device(), outer)):
        fake.tenant.join(member, group)
    pages, _ = read(directory)
    assert all(page.snapshot for page in pages)
    assert told(pages) == {
        (Kind.ACCOUNT_ACTIVATED, ada, None),
        (Kind.ACCOUNT_DEACTIVATED, bob, None),
        (Kind.GROUP_MEMBER_ADDED, ada, inner),
        (Kind.GROUP_MEMBER_ADDED, bob, outer),
        (Kind.GROUP_MEMBER_ADDED, ada, outer),
    }
    event = next(e for page in pages for e in page.events if e.subject == ada and e.group_id is None)
    assert (event.source, event.type, event.login, event.email) == (
        "entra",
        "delta.users",
        "ada@acme.example",
        "ada@acme.example",
    )
    assert (event.key, event.twin, event.occurred_at) == (None, False, None)
    assert json.loads(event.payload)["userPrincipalName"] == "ada@acme.example"
    member = next(e for page in pages for e in page.events if e.group_id == inner)
    assert (member.group_name, member.type) == ("Compilers", "delta.groups")
    assert [entry["id"] for entry in json.loads(member.payload)["members@delta"]] == [ada]


def test_a_later_pass_tells_only_what_changed(fake: FakeGraph, directory: EntraDirectory) -> None:
    people = {name: fake.tenant.add_user(f"{name}@acme.example")[0] for name in ("ada", "bob", "cyd", "dan", "eve")}
    eng, _ = fake.tenant.add_group("Engineering")
    old, _ = fake.tenant.add_group("Old", unified=True)
    fake.tenant.join(people["bob"], eng)
    _, cursor = read(directory)
    pages, cursor = read(directory, cursor)
    assert told(pages) == set()
    fake.tenant.disable(people["ada"])
    fake.tenant.leave(people["bob"], eng)
    fake.tenant.join(people["cyd"], eng)
    fake.tenant.soft_delete(people["dan"])
    fake.tenant.purge(people["eve"])
    fake.tenant.delete_group(old)
    pages, cursor = read(directory, cursor)
    assert not any(page.snapshot for page in pages)
    assert told(pages) == {
        (Kind.ACCOUNT_DEACTIVATED, people["ada"], None),
        (Kind.GROUP_MEMBER_REMOVED, people["bob"], eng),
        (Kind.GROUP_MEMBER_ADDED, people["cyd"], eng),
        (Kind.ACCOUNT_DELETED, people["dan"], None),
        (Kind.ACCOUNT_DELETED, people["eve"], None),
        (Kind.GROUP_DELETED, None, old),
    }
    fake.tenant.enable(people["ada"])
    pages, _ = read(directory, cursor)
    assert told(pages) == {(Kind.ACCOUNT_ACTIVATED, people["ada"], None)}


def test_a_group_that_joins_or_leaves_a_group_is_told_without_naming_anybody(
    fake: FakeGraph, directory: EntraDirectory
) -> None:
    inner = [fake.tenant.add_group(name)[0] for name in ("Compilers", "Linkers")]
    outer, _ = fake.tenant.add_group("Engineering")
    _, cursor = read(directory)
    for group in inner:
        fake.tenant.join(group, outer)
    pages, cursor = read(directory, cursor)
    [event] = [event for page in pages for event in page.events]
    assert (event.kind, event.subject, event.group_id) == (Kind.GROUP_MEMBER_ADDED, None, outer)
    assert [entry["id"] for entry in json.loads(event.payload)["members@delta"]] == inner
    fake.tenant.leave(inner[0], outer)
    assert told(read(directory, cursor)[0]) == {(Kind.GROUP_MEMBER_REMOVED, None, outer)}


def test_what_a_deleted_inner_group_leaves_is_told_too(fake: FakeGraph, directory: EntraDirectory) -> None:
    inner, _ = fake.tenant.add_group("Compilers")
    outer, _ = fake.tenant.add_group("Engineering")
    fake.tenant.join(inner, outer)
    _, cursor = read(directory)
    fake.tenant.delete_group(inner)
    assert told(read(directory, cursor)[0]) == {
        (Kind.GROUP_DELETED, None, inner),
        (Kind.GROUP_MEMBER_REMOVED, None, outer),
    }


def test_small_pages_and_repeated_items_change_nothing(fake: FakeGraph, directory: EntraDirectory) -> None:
    people = [fake.tenant.add_user(f"p{number}@acme.example")[0] for number in range(7)]
    inner, _ = fake.tenant.add_group("Compilers")
    outer, _ = fake.tenant.add_group("Engineering")
    for person in people:
        fake.tenant.join(person, inner)
    fake.tenant.join(inner, outer)
    whole, _ = read(directory)
    fake.page_size, fake.repeat = 2, True
    pages, _ = read(directory)
    assert told(pages) == told(whole)
    assert len(pages) > 8


def test_a_pass_goes_on_where_it_was_left(fake: FakeGraph, directory: EntraDirectory) -> None:
    people = [fake.tenant.add_user(f"p{number}@acme.example")[0] for number in range(5)]
    eng, _ = fake.tenant.add_group("Engineering")
    for person in people:
        fake.tenant.join(person, eng)
    fake.page_size = 2
    whole, _ = read(directory)
    for stop in range(1, len(whole)):
        begun = []
        for page in directory.changes(None, 0):
            begun.append(page)
            if len(begun) == stop:
                break
        rest, _ = read(directory, begun[-1].cursor)
        assert told(begun + rest) == told(whole)
        assert len(begun) + len(rest) == len(whole)
        assert all(page.snapshot for page in rest)


@pytest.mark.parametrize("with_location", [True, False])
def test_links_that_have_expired_start_a_full_pass(
    fake: FakeGraph, directory: EntraDirectory, with_location: bool
) -> None:
    fake.gone_has_location = with_location
    ada, _ = fake.tenant.add_user("ada@acme.example")
    _, cursor = read(directory)
    fake.expire_tokens()
    pages, cursor = read(directory, cursor)
    assert all(page.snapshot for page in pages)
    assert told(pages) == {(Kind.ACCOUNT_ACTIVATED, ada, None)}
    pages, _ = read(directory, cursor)
    assert not any(page.snapshot for page in pages)


def test_links_that_expire_in_the_middle_start_again(fake: FakeGraph, directory: EntraDirectory) -> None:
    people = {fake.tenant.add_user(f"p{number}@acme.example")[0] for number in range(5)}
    fake.page_size = 2
    pages = directory.changes(None, 0)
    first = next(pages)
    fake.expire_tokens()
    assert {subject for _, subject, _ in told(list(pages))} == people
    assert first.snapshot


def test_a_pass_that_always_expires_fails(fake: FakeGraph, directory: EntraDirectory) -> None:
    fake.fail(5, status=410)
    with pytest.raises(LookUpFailed, match="expired"):
        list(directory.changes(None, 0))


@pytest.mark.parametrize("cursor", ["", "junk", "[]", "{}", '{"mark": 1}', "null"])
def test_a_cursor_that_is_none_starts_a_full_pass(directory: EntraDirectory, cursor: str) -> None:
    assert read(directory, cursor)[0][0].snapshot


def test_a_cursor_of_another_tenant_starts_a_full_pass(fake: FakeGraph, directory: EntraDirectory) -> None:
    _, cursor = read(directory)
    with FakeGraph() as other:
        moved = EntraDirectory("entra", other.source(), lambda: CLIENT_SECRET)
        assert read(moved, cursor)[0][0].snapshot
    assert not read(directory, cursor)[0][0].snapshot


@pytest.mark.parametrize(
    ("trouble", "waits"),
    [
        (lambda fake: fake.throttle(1, 7), [7]),
        (lambda fake: fake.throttle(2, 40), [40, 40]),
        (lambda fake: fake.throttle(1, 3600), [120]),
        (lambda fake: fake.fail(3), [1, 5, 30]),
    ],
)
def test_every_page_of_a_listing_is_asked_for_again(
    fake: FakeGraph,
    directory: EntraDirectory,
    waited: list[float],
    trouble: Callable[[FakeGraph], None],
    waits: list[float],
) -> None:
    people = [fake.tenant.add_user(f"p{number}@acme.example")[0] for number in range(5)]
    inner, outer = (fake.tenant.add_group(name)[0] for name in ("Compilers", "Engineering"))
    for member in people:
        fake.tenant.join(member, inner)
    fake.tenant.join(inner, outer)
    fake.page_size = 2
    whole, _ = read(directory)
    pages, found = directory.changes(None, 0), []
    for _ in whole:
        waited.clear()
        trouble(fake)
        asked = len(fake.asked)
        found.append(next(pages))
        assert waited == waits[: len(waited)]
        assert waited or len(fake.asked) == asked, "the rest of an answer that had come"
    assert (told(found), found[-1].last) == (told(whole), True)


def test_a_pass_whose_page_fails_again_and_again_is_given_up_and_loses_nothing(
    fake: FakeGraph, directory: EntraDirectory, waited: list[float]
) -> None:
    ada, _ = fake.tenant.add_user("ada@acme.example")
    _, cursor = read(directory)
    fake.tenant.disable(ada)
    fake.throttle(4)
    with pytest.raises(LookUpFailed):
        list(directory.changes(cursor, 0))
    assert waited == [7, 7, 30]
    assert told(read(directory, cursor)[0]) == {(Kind.ACCOUNT_DEACTIVATED, ada, None)}


def test_what_lasts_is_not_asked_for_again(fake: FakeGraph, directory: EntraDirectory, waited: list[float]) -> None:
    fake.fail(2, status=403, code="Authorization_RequestDenied")
    with pytest.raises(LookUpFailed, match="lacks a permission"):
        list(directory.changes(None, 0))
    assert waited == []


# which directory


def test_the_directory_of_a_source(fake: FakeGraph) -> None:
    assert isinstance(directories.build("entra", fake.source(), lambda: ""), EntraDirectory)
    assert directories.build("entra", {"type": "entra", "client_state": {"env": "X"}}, lambda: "") is None


def test_the_public_cloud_without_addresses() -> None:
    client = graph_module.client_of({"tenant": "acme.example", "client_id": "x", "client_secret": {}}, lambda: "")
    assert client._url("/users/1") == "https://graph.microsoft.com/v1.0/users/1"

"""What a person gets told for each mistake in relay.yaml and its map."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from relay.config import ConfigFile, parse_map
from relay.errors import ConfigError, Problem
from tests.config_files import GOOD, write_config

RULE = "    when: {kind: [group.member_removed], group.id: [g1]}\n"
REVOKE = "    revoke: [{list: all}]\n"
OKTA = "{type: okta, secret: {env: OKTA_HOOK_SECRET}}"
IDENTITY = '["{user.id}"]'


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """A function that writes relay.yaml and, when given, users.csv; it returns the path of relay.yaml."""
    return partial(write_config, tmp_path)


def mistakes(path: Path) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        ConfigFile(path)
    return list(caught.value.problems)


def when(text: str) -> tuple[str, str]:
    return RULE, f"    when: {text}\n"


def revoke(text: str) -> tuple[str, str]:
    return REVOKE, f"    revoke: {text}\n"


def test_mistakes_come_in_the_order_of_the_file(write: Callable[..., Path]) -> None:
    broken = "mode: loud\naccounts: none\n" + GOOD.replace("type: okta", "type: octa").replace("[g1]", "[7]")
    paths = ["mode", "accounts", "sources.okta.type", "rules[0].when.group.id[0]"]
    assert [problem.path for problem in mistakes(write(broken))] == paths


@pytest.mark.parametrize(
    ("change", "path", "words"),
    [
        # the file as a whole
        (("sources:", "source:"), "", 'unknown key "source"; did you mean "sources"?'),
        (("identity: ", "identities: "), "", 'did you mean "identity"?'),
        ((GOOD, "sources: {}\nrules: []\n"), "", '"identity" is missing'),
        ((GOOD, ""), "", "is empty"),
        ((GOOD, "# nothing\n"), "", "is empty"),
        ((GOOD, "- a\n"), "", "found a list; wanted is a mapping"),
        ((GOOD, "text"), "", 'found "text"; wanted is a mapping'),
        ((GOOD, GOOD + "---\na: b\n"), "", "line 11"),
        (
            (GOOD, GOOD + "mode: observe\nmode: enforce\n"),
            "",
            'line 12, column 1: the key "mode" stands here a second time',
        ),
        (("{list: all}", "{list: all, list: all}"), "", 'the key "list" stands here a second time'),
        ((GOOD, GOOD + "on: x\n"), "", "line 11, column 1: the key true is not a text: write it in quotes"),
        ((GOOD, GOOD + "7: x\n"), "", "the key the number 7 is not a text"),
        ((GOOD, GOOD + "? [a]\n: b\n"), "", "line 11"),
        ((GOOD, GOOD + "\tmode: observe\n"), "", "line 11, column 1"),
        ((GOOD, GOOD + "\tmode: observe\n"), "", "there is a tab on this line"),
        ((GOOD, "sources: {okta: [}"), "", "line 1, column"),
        ((GOOD, "a: !!python/object:os.system x"), "", "could not determine a constructor"),
        ((GOOD, "a: *nowhere"), "", "undefined alias"),
        ((GOOD, "mode: 2026-13-45"), "", "needs quotes"),
        ((GOOD, "a: \x00"), "", "is not readable as YAML"),
        # sources
        ((OKTA, "{type: okat, secret: {env: A}}"), "sources.okta.type", 'did you mean "okta"?'),
        ((OKTA, "{secret: {env: A}}"), "sources.okta", '"type" is missing: okta, entra or scim'),
        ((OKTA, "{type: okta}"), "sources.okta", '"secret" is missing'),
        ((OKTA, "[okta]"), "sources.okta", "found a list; wanted is an object"),
        ((OKTA, "null"), "sources.okta", "found nothing (null)"),
        ((OKTA, "{type: okta, secret: hunter2}"), "sources.okta.secret", "written {env: NAME}"),
        ((OKTA, "{type: okta, secret: {env: hunter-2}}"), "sources.okta.secret.env", "not shown, it may be a secret"),
        ((OKTA, "{type: okta, secret: {env: A, file: b}}"), "sources.okta.secret", "set NAME_FILE to its path"),
        ((OKTA, "{type: okta, secret: {value: hunter2}}"), "sources.okta.secret", "put it into the environment"),
        ((OKTA, "{type: okta, client_state: {env: A}}"), "sources.okta", "an Okta source calls it `secret`"),
        ((OKTA, "{type: okta, secret: {env: A}, header: 'a b'}"), "sources.okta.header", "the name of an HTTP header"),
        (
            (OKTA, "{type: okta, secret: {env: A}, api: {url: acme, token: {env: B}}}"),
            "sources.okta.api.url",
            "an address",
        ),
        ((OKTA, "{type: okta, secret: {env: A}, api: {url: 'https://a'}}"), "sources.okta.api", '"token" is missing'),
        (
            (OKTA, "{type: okta, secret: {env: A}, api: {url: 'https://a', token: {env: B}, client_id: x}}"),
            "sources.okta.api",
            "a client_id belongs to a service app",
        ),
        (
            (OKTA, "{type: okta, secret: {env: A}, api: {url: 'https://a', client_id: x}}"),
            "sources.okta.api",
            '"private_key" is missing',
        ),
        (
            (
                OKTA,
                "{type: okta, secret: {env: A},"
                " api: {url: 'https://a', token: {env: B}, client_id: x, private_key: {env: C}}}",
            ),
            "sources.okta.api",
            "a token is one way",
        ),
        (
            (
                OKTA,
                "{type: okta, secret: {env: A},"
                " api: {url: 'https://a', client_id: x, client_secret: {env: B}, private_key: {env: C}}}",
            ),
            "sources.okta.api",
            "by a private key only",
        ),
        (
            (OKTA, "{type: okta, secret: {env: A}, kinds: {x: account.lost}}"),
            "sources.okta.kinds.x",
            'found "account.lost"',
        ),
        (
            (OKTA, "{type: okta, secret: {env: A}, kinds: {x: operator.remove}}"),
            "sources.okta.kinds.x",
            "only an operator",
        ),
        ((OKTA, "{type: entra, secret: {env: A}}"), "sources.okta", "calls it `client_state`"),
        (
            (OKTA, "{type: entra, client_state: {env: A}, public_url: 'https://a'}"),
            "sources.okta",
            '"graph" is missing',
        ),
        (
            (OKTA, "{type: entra, client_state: {env: A}, graph: {tenant: t, client_id: c}}"),
            "sources.okta.graph",
            '"client_secret" is missing',
        ),
        (
            (
                OKTA,
                "{type: entra, client_state: {env: A}, graph: "
                "{tenant: t, client_id: c, client_secret: {env: B}, certificate: {env: C}}}",
            ),
            "sources.okta.graph",
            "leave one of them out",
        ),
        ((OKTA, "{type: scim, secret: {env: A}}"), "sources.okta", "calls it `token`"),
        ((OKTA, "{type: scim, token: {env: A}, kinds: {}}"), "sources.okta", "no event types to map"),
        (("  okta:", "  Okta:"), "sources", 'found "Okta"; wanted is a source\'s name of small letters'),
        (("  okta:", "  'a/b':"), "sources", 'found "a/b"'),
        # identity
        ((IDENTITY, '"{user.id}"'), "identity.velt_user_id", "wanted is a list of templates"),
        ((IDENTITY, "[]"), "identity.velt_user_id", "is empty"),
        ((IDENTITY, '[""]'), "identity.velt_user_id[0]", "is empty"),
        (
            (IDENTITY, '["{user.mail}"]'),
            "identity.velt_user_id[0]",
            'no field "user.mail" here; did you mean "user.email"?',
        ),
        ((IDENTITY, '["{group.id}"]'), "identity.velt_user_id[0]", 'no field "group.id" here'),
        ((IDENTITY, '["everybody"]'), "identity.velt_user_id[0]", "holds no field"),
        ((IDENTITY, '["{{user.id}}"]'), "identity.velt_user_id[0]", "holds no field"),
        ((IDENTITY, '["{user.id"]'), "identity.velt_user_id[0]", "is not a template"),
        ((IDENTITY, '["{user.id}"], map: users.csv'), "identity.map", "users.csv cannot be read (No such file"),
        # lists
        (("[{type: organization, id: acme}]", "[]"), "lists.all", "is empty"),
        (("{type: organization, id: acme}", "{list: all}"), "lists.all[0]", "unknown key"),
        (("{type: organization, id: acme}", "{type: document, id: d}"), "lists.all[0]", '"organizationId" is missing'),
        (("id: acme", 'id: "{org}"'), "lists.all[0].id", 'no field "org" here'),
        (("id: acme", 'id: "{org}"'), "lists.all[0].id", "(used at rules[0].revoke[0])"),
        (("{list: all}", "{type: organization, id: a}"), None, None),
        # rules: when
        (when("{}"), "rules[0].when", "is empty; wanted is at least one condition"),
        (when("{kind: group.member_remove}"), "rules[0].when.kind", 'did you mean "group.member_removed"?'),
        (when("{kind: [deactivated]}"), "rules[0].when.kind[0]", 'did you mean "account.deactivated"?'),
        (when("{kind: []}"), "rules[0].when.kind", "is empty"),
        (when("{kind: [{prefix: account}]}"), "rules[0].when.kind[0]", "wanted is a kind of loss"),
        (when("{kind: account.activated}"), "rules[0].when.kind", "is a gain: it takes nothing away"),
        (when("{kind: [group.member_added]}"), "rules[0].when.kind[0]", "is a gain"),
        (when("{kind: [app.access_added]}"), "rules[0].when.kind[0]", "is a gain"),
        (when("{kind: [unknown]}"), "rules[0].when.kind[0]", "with `kinds` in its source"),
        (when("{kind: [account.changed]}"), "rules[0].when.kind[0]", "does not say what was lost"),
        (when("{kind: [group.changed]}"), "rules[0].when.kind[0]", "does not say what was lost"),
        (when("{kind: [operator.remove]}"), "rules[0].when.kind[0]", "no rule is asked"),
        (when("{group.nmae: a}"), "rules[0].when", 'did you mean "group.name"?'),
        (when("{group: {name: a}}"), "rules[0].when", "such as group.name"),
        (when("{group.name: 7}"), "rules[0].when.group.name", "found the number 7"),
        (when("{group.name: [2026-01-02]}"), "rules[0].when.group.name[0]", "found the date 2026-01-02"),
        (when("{group.name: [7]}"), "rules[0].when.group.name[0]", "wanted is a text or an operator"),
        (when("{group.name: null}"), "rules[0].when.group.name", "found nothing (null)"),
        (when("{group.name: []}"), "rules[0].when.group.name", "is empty"),
        (when("{group.name: ['']}"), "rules[0].when.group.name[0]", "is empty"),
        (when("{group.name: {prefx: a}}"), "rules[0].when.group.name", 'did you mean "prefix"?'),
        (when("{group.name: {type: x}}"), "rules[0].when.group.name", 'unknown key "type"'),
        (when("{group.name: {prefix: 7}}"), "rules[0].when.group.name.prefix", "write it in quotes"),
        (when("{group.name: {equals: a}}"), "rules[0].when.group.name", "without operator"),
        (when("{group.name: {prefix: a, suffix: b}}"), "rules[0].when.group.name", "holds 2 keys"),
        (when("{group.name: {}}"), "rules[0].when.group.name", "is empty; wanted is exactly one operator"),
        (when("{group.name: {exists: maybe}}"), "rules[0].when.group.name.exists", "true or false"),
        (when("{group.name: {anything-but: []}}"), "rules[0].when.group.name.anything-but", "is empty"),
        (when("{group.name: {regex: '(a'}}"), "rules[0].when.group.name.regex", "missing )"),
        (when("{group.name: [x, {regex: '(?=a)'}]}"), "rules[0].when.group.name[1].regex", "not a regular expression"),
        (when("{group.name: {regex: " + "a" * 501 + "}}"), "rules[0].when.group.name.regex", "is 501 characters long"),
        (when("{group.name: {regex: '(?P<source>a)'}}"), "rules[0].when.group.name.regex", "would hide the field"),
        (when("{source: okt, group.id: a}"), "rules[0].when.source", 'no source "okt"; did you mean "okta"?'),
        (when("{source: [okta, ping], group.id: a}"), "rules[0].when.source[1]", 'no source "ping"'),
        (when("{source: {anything-but: [okt]}, group.id: a}"), "rules[0].when.source", 'did you mean "okta"?'),
        # rules: revoke
        (revoke("everythin"), "rules[0].revoke", 'did you mean "everything"?'),
        (revoke("all"), "rules[0].revoke", "wanted is the word everything"),
        (revoke("{list: all}"), "rules[0].revoke", "wanted is the word everything, or a list"),
        (revoke("[]"), "rules[0].revoke", "is empty"),
        (revoke("[{list: al}]"), "rules[0].revoke[0].list", 'no list "al"; did you mean "all"?'),
        (revoke("[all]"), "rules[0].revoke[0]", "wanted is a resource or {list: NAME}"),
        (revoke("[{lst: all}]"), "rules[0].revoke[0]", 'did you mean "list"?'),
        (revoke("[{type: documnet, id: d, organizationId: o}]"), "rules[0].revoke[0].type", 'did you mean "document"?'),
        (revoke("[{type: document, id: d}]"), "rules[0].revoke[0]", '"organizationId" is missing'),
        (revoke("[{type: folder, id: d}]"), "rules[0].revoke[0]", '"organizationId" is missing'),
        (revoke("[{type: organization, id: d, organizationId: o}]"), "rules[0].revoke[0]", "leave organizationId out"),
        (
            revoke("[{type: document, id: d, organisationId: o}]"),
            "rules[0].revoke[0]",
            'did you mean "organizationId"?',
        ),
        (revoke("[{type: organization, id: 7}]"), "rules[0].revoke[0].id", "write it in quotes"),
        (revoke("[{type: organization, id: ''}]"), "rules[0].revoke[0].id", "is empty"),
        (revoke("[{type: organization, id: '{org}'}]"), "rules[0].revoke[0].id", 'no field "org" here'),
        (revoke("[{type: organization, id: '{user.eid}'}]"), "rules[0].revoke[0].id", 'did you mean "user.id"?'),
        (revoke("[{type: organization, id: 'a}'}]"), "rules[0].revoke[0].id", "is not a template"),
        (revoke("[{type: organization, id: '{user.id!r}'}]"), "rules[0].revoke[0].id", "is not a template"),
        (revoke("[{type: organization, id: '{}'}]"), "rules[0].revoke[0].id", "is not a template"),
        (
            revoke("[{type: document, id: d, organizationId: '{o}'}]"),
            "rules[0].revoke[0].organizationId",
            'no field "o"',
        ),
        (("name: first\n    when", "when"), "rules[0]", '"name" is missing'),
        ((REVOKE, ""), "rules[0]", '"revoke" is missing'),
        ((REVOKE, REVOKE + "  - name: first\n" + RULE + REVOKE), "rules[1].name", "is another rule's name too"),
        ((REVOKE, REVOKE + "    unless: x\n"), "rules[0]", 'unknown key "unless"'),
        # the rest
        ((GOOD, GOOD + "mode: off\n"), "mode", 'found false; possible: "enforce", "observe"'),
        ((GOOD, GOOD + "mode: observ\n"), "mode", 'did you mean "observe"?'),
        ((GOOD, GOOD + "accounts: all\n"), "accounts", '"any"'),
        ((GOOD, GOOD + "guard: {users: 0, within: 1h}\n"), "guard.users", "a whole number from 1 up"),
        ((GOOD, GOOD + "guard: {users: 1}\n"), "guard", '"within" is missing'),
        (
            (GOOD, GOOD + "guard: {users: 1, within: 1h, account_losses: exempted}\n"),
            "guard.account_losses",
            'did you mean "exempt"?',
        ),
        (
            (GOOD, GOOD + "guard: {users: 1, within: 1h, account_loses: exempt}\n"),
            "guard",
            'did you mean "account_losses"?',
        ),
        ((REVOKE, REVOKE + "    max_resources: 0\n"), "rules[0].max_resources", "a whole number from 1 up"),
        ((REVOKE, REVOKE + "    max_resources: many\n"), "rules[0].max_resources", "a whole number from 1 up"),
        ((GOOD, GOOD + "guard: {users: 1, within: 60}\n"), "guard.within", "a duration such as"),
        ((GOOD, GOOD + 'guard: {users: 1, within: "1h\\n"}\n'), "guard.within", "a duration such as"),
        ((GOOD, GOOD + "guard: {users: 1, within: 0s}\n"), "guard.within", "a duration such as"),
        ((GOOD, GOOD + "look_up: {patience: soon}\n"), "look_up.patience", "a duration such as"),
        ((GOOD, GOOD + "velt: {concurrency: 0}\n"), "velt.concurrency", "a whole number from 1 up"),
        ((GOOD, GOOD + "velt: {concurrency: 1.5}\n"), "velt.concurrency", "a whole number from 1 up"),
        ((GOOD, GOOD + "velt: {rate: -1}\n"), "velt.rate", "0 for no limit"),
        ((GOOD, GOOD + "velt: {confirm: 'yes'}\n"), "velt.confirm", "true or false"),
        ((GOOD, GOOD + "velt: {timout: 5s}\n"), "velt", 'did you mean "timeout"?'),
        ((GOOD, GOOD + "retention: {events: 1y}\n"), "retention.events", "a duration such as"),
        ((GOOD, GOOD + "log: {users: plain}\n"), "log.users", '"hashed"'),
    ],
)
def test_each_mistake_is_a_sentence(
    write: Callable[..., Path], change: tuple[str, str], path: str | None, words: str | None
) -> None:
    assert change[0] in GOOD
    file = write(GOOD.replace(*change))
    if path is None or words is None:
        ConfigFile(file)
        return
    found = [problem for problem in mistakes(file) if problem.path == path]
    assert any(words in problem.message for problem in found), [str(problem) for problem in mistakes(file)]
    assert not any("hunter" in str(problem) for problem in mistakes(file))


@pytest.mark.parametrize("text", ["", "- a\n", "a: [\n", GOOD.replace("rules:", "rule:")])
def test_a_mistake_of_the_file_as_a_whole_names_the_file(write: Callable[..., Path], text: str) -> None:
    file = write(text)
    assert all(str(problem).startswith(f"{file}: ") for problem in mistakes(file))


def test_what_is_not_the_right_shape_is_told_first(write: Callable[..., Path]) -> None:
    """As the documentation says: what a file means can only be asked once it has its shape."""
    both = GOOD.replace("{list: all}", "{list: al}") + "mode: loud\n"
    assert [problem.path for problem in mistakes(write(both))] == ["mode"]


def test_all_mistakes_are_told_at_once(write: Callable[..., Path]) -> None:
    text = GOOD.replace("{list: all}", "{list: al}").replace("{user.id}", "{user.ib}")
    assert {problem.path for problem in mistakes(write(text))} == {
        "rules[0].revoke[0].list",
        "identity.velt_user_id[0]",
    }


def test_a_mistake_in_a_rule_names_the_rule(write: Callable[..., Path]) -> None:
    (problem,) = mistakes(write(GOOD.replace("{list: all}", "{list: al}")))
    assert problem.message.endswith('(in the rule "first")')


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (problem,) = mistakes(tmp_path / "none.yaml")
    assert "none.yaml cannot be read (No such file or directory); RELAY_CONFIG names the file" in problem.message


def test_a_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "relay.yaml").write_bytes(b"a: b\nc: \xff\n")
    (problem,) = mistakes(tmp_path / "relay.yaml")
    assert problem.message.startswith(f"{tmp_path / 'relay.yaml'}: line 2: is not UTF-8")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "its first line is ''"),
        (b"login,velt\n", "its first line is 'login,velt'; wanted is idp_id_or_login,velt_user_id"),
        (b"idp_id_or_login,velt_user_id\na\n", "line 2: found 1 values"),
        (b"idp_id_or_login,velt_user_id\na,b,c\n", "line 2: found 3 values"),
        (b"idp_id_or_login,velt_user_id\na,b\n,c\n", "line 3: a value is empty"),
        (b"idp_id_or_login,velt_user_id\na, \n", "line 2: a value is empty"),
        (b"idp_id_or_login,velt_user_id\na,b\na,c\n", 'line 3: "a" stands here a second time'),
        (b"idp_id_or_login,velt_user_id\na,\xff\n", "line 2: is not UTF-8"),
        (b"idp_id_or_login,velt_user_id\na," + b"b" * 200_000 + b"\n", "line 2: field larger than field limit"),
    ],
)
def test_mistakes_of_the_map(content: bytes, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_map(content)
    assert [problem.path for problem in caught.value.problems] == ["identity.map"]
    assert words in caught.value.problems[0].message


def test_the_map_may_carry_a_byte_order_mark_and_windows_lines() -> None:
    assert parse_map(b"\xef\xbb\xbfidp_id_or_login,velt_user_id\r\na,b\r\n") == {"a": "b"}

"""Tables on terminals of any width."""

from __future__ import annotations

import pytest

from relay import terminal

HEAD = ("AT", "ID", "STATE", "WHY")
ID = "evt_0123456789ab0000abcdefabcdefabcd"
REASON = "a reason that is longer than what is left of the line and has to be read whole"
ROWS = [("12:00", ID, "failed", REASON), ("12:01", ID, "done", "gain")]


@pytest.fixture
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.mark.parametrize("columns", [40, 60, 80, 120], indirect=True)
def test_a_terminal_is_never_overrun_and_nothing_is_cut(columns: int) -> None:
    text = terminal.table(HEAD, ROWS)
    assert max(map(len, text.splitlines())) <= columns
    assert text.count(ID) == 2
    assert " ".join(text.split()).count(REASON) == 1


@pytest.mark.parametrize("columns", [60], indirect=True)
def test_what_does_not_fit_goes_under_its_row(columns: int) -> None:
    lines = terminal.table(HEAD, ROWS).splitlines()
    assert lines[:2] == [f"AT     {'ID'.ljust(36)}  STATE", "    WHY"]
    assert lines[2] == f"12:00  {ID}  failed"
    assert lines[-1] == "    gain"


@pytest.mark.parametrize("columns", [200], indirect=True)
def test_a_wide_terminal_has_a_line_a_row(columns: int) -> None:
    assert len(terminal.table(HEAD, ROWS).splitlines()) == 3


def test_a_file_or_pipe_has_a_line_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = terminal.table(HEAD, ROWS).splitlines()
    assert [line.split()[1] for line in lines] == ["ID", ID, ID]
    assert lines[1].endswith(REASON)


@pytest.mark.parametrize(
    ("confirmation", "why", "due_at", "told"),
    [
        (None, None, None, "Permissions removed."),
        (None, None, "2026-11-24T17:12:31.5Z", "Permissions removed: Velt is asked at 2026-11-24 17:12:31Z"),
        (
            "still has access",
            "it is public",
            "2026-11-24T17:46:01.5Z",
            "Permissions removed: still has access: it is public; Velt is asked again at 2026-11-24 17:46:01Z",
        ),
        ("confirmed", "no access", None, "Permissions removed: confirmed: no access"),
    ],
)
def test_what_asking_came_to_stands_behind_the_answer(
    confirmation: str | None, why: str | None, due_at: str | None, told: str
) -> None:
    found = {"confirmation": confirmation, "confirmation_reason": why, "confirmation_due_at": due_at}
    assert terminal._and("Permissions removed.", terminal._confirmation(found)) == told

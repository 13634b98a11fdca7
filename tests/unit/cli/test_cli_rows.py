"""Tables at the width of the terminal."""

import io

from rich.console import Console, RenderableType
from rich.text import Text

from controlplane.cli.rows import Facts, Rows

WORDS = "no secret at from_env: NOPE, nor anywhere else that was looked at today"


def lines(part: RenderableType, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(part, crop=False)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_columns_are_aligned_and_no_line_ends_in_blanks() -> None:
    assert lines(Rows(["A", "LONGER", "B"], [("1", Text("2", "red"), ""), ("333", "4", "5")]), 200) == [
        "A    LONGER  B",
        "1    2",
        "333  4       5",
    ]


def test_a_message_wraps_beside_the_other_columns_where_there_is_room() -> None:
    told = lines(Rows(["NAME", "MESSAGE"], [("app", WORDS)]), 60)
    assert told[1].startswith("app   no secret")
    assert told[2].startswith("      ")
    assert max(map(len, told)) <= 60


def test_a_message_goes_below_where_there_is_no_room_and_names_stay_whole() -> None:
    told = lines(Rows(["NAME", "MESSAGE"], [("a-name-that-takes-most-of-the-line", WORDS)]), 50)
    assert told[1] == "a-name-that-takes-most-of-the-line"
    assert told[2].startswith("    no secret")
    assert max(map(len, told)) <= 50


def test_what_looks_like_markup_stands_as_it_is() -> None:
    assert lines(Rows(["A"], [("[bold]x[/]",)]), 80)[1] == "[bold]x[/]"


def test_facts_wrap_beside_their_names() -> None:
    told = lines(Facts([("Reason", WORDS), ("None", "")]), 40)
    assert told[1].startswith("        ")
    assert told[-1] == "None"

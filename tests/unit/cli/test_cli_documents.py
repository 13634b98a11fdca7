"""Declarations out of files, and complaints that name the place in them."""

from pathlib import Path

import pytest

from controlplane.cli import documents
from controlplane.cli.failure import Failure

TWO = """\
# the shop
---
type: cache.redis_user
name: app
value: {target: main}
---
type: cache.redis_user
name: web
value:
  since: 2026-01-31
"""


def test_a_file_holds_many_documents_with_their_places() -> None:
    found = documents.parse(TWO, "shop.yaml")
    assert [document.reference for document in found] == ["cache.redis_user/app", "cache.redis_user/web"]
    assert [document.place for document in found] == ["shop.yaml document 1, line 3", "shop.yaml document 2, line 7"]


def test_dates_stay_text() -> None:
    assert documents.parse(TWO, "x")[1].declaration["value"] == {"since": "2026-01-31"}


def test_empty_documents_are_left_out() -> None:
    assert [d.place for d in documents.parse("---\n---\n{type: a.b, name: c}\n---\n", "x")] == ["x document 2, line 3"]


def test_json_may_be_one_declaration_a_list_or_a_body_of_apply() -> None:
    one = '{"type": "cache.namespace", "name": "a", "value": {}}'
    for text in (one, f"[{one}]", f'{{"settings": [{one}]}}'):
        assert [document.reference for document in documents.parse(text, "x.json")] == ["cache.namespace/a"]


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        ("a: 1\n---\nb: [1\n", "x.yaml", "x.yaml document 2"),
        ("a: 1\na: 2\n", "x.yaml", "x.yaml document 1, line 2: the key 'a' stands here twice"),
        ("1: x\n", "x.yaml", "the key 1 isn't text; quote it"),
        ("on: x\n", "x.yaml", "the key True isn't text; quote it"),
        ("just words\n", "x.yaml", "x.yaml document 1, line 1: a declaration is a map"),
        ("[1, 2]\n", "x.yaml", "not a list of something else"),
        ("{\n  oops\n}", "x.json", "x.json, line 2"),
        ("a: !!python/object:os.system x\n", "x.yaml", "x.yaml document 1"),
    ],
)
def test_what_cant_be_read_is_told_with_its_place(text: str, source: str, expected: str) -> None:
    with pytest.raises(Failure) as caught:
        documents.parse(text, source)
    assert expected in caught.value.message


def test_a_directory_is_read_in_order_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.json", "sub/c.yml", ".git/d.yaml", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'{{"type": "cache.namespace", "name": "{path.stem}", "value": {{}}}}')
    assert [d.declaration["name"] for d in documents.load([str(tmp_path)])] == ["a", "b", "c"]


def test_standard_input_is_a_dash() -> None:
    assert documents.load(["-"], stdin=TWO)[0].place.startswith("standard input document 1")


def test_a_missing_file_and_an_empty_directory_are_said(tmp_path: Path) -> None:
    for source in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(Failure) as caught:
            documents.load([str(source)])
        assert str(source) in caught.value.message


def test_a_setting_declared_twice_is_said_with_both_places() -> None:
    with pytest.raises(Failure) as caught:
        documents.load(["-", "-"], stdin="{type: a.b, name: c}")
    assert caught.value.faults == (
        ("standard input document 1, line 1", "a.b/c is declared already at standard input document 1, line 1"),
    )


def test_every_declaration_without_type_or_name_is_said_at_once() -> None:
    with pytest.raises(Failure) as caught:
        documents.load(["-"], stdin="{value: {}}\n---\n{type: a.b, name: 7}\n---\n{setting_type: a.b, name: x}\n")
    places = [place for place, _ in caught.value.faults]
    assert places == [f"standard input document {number}, line {line}" for number, line in ((1, 1), (2, 3), (3, 5))]
    assert "use export" in caught.value.faults[2][1]


def test_a_path_of_the_daemon_becomes_a_place_in_the_file() -> None:
    found = documents.parse(TWO, "shop.yaml")
    told = documents.placed("/settings/1/value/since", found)
    assert told == "shop.yaml document 2, line 7 (cache.redis_user/web) /value/since"
    assert documents.placed("/settings/9/value", found) == "/settings/9/value"
    assert documents.placed("/prune/labels", found) == "/prune/labels"

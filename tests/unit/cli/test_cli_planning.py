"""A plan in a person's words."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.cli import planning
from controlplane.cli.documents import Document

KEY = "default/cache.redis_user/"


def result(name: str, outcome: str, **more: Any) -> dict[str, Any]:
    return {"setting": KEY + name, "outcome": outcome, "changed": [], "differences": []} | more


def step(name: str, summary: str, **more: Any) -> dict[str, Any]:
    return {"setting": KEY + name, "step": "S", "summary": summary, "irreversible": False, "details": {}} | more


def plan(*results: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"plan_id": "1-a-b-c", "results": results, "steps": [], "unchanged": [], "unknown": [], "refused": []} | more


def rows(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [(setting.rpartition("/")[2], outcome.plain, text) for setting, outcome, text in planning.plan_rows(found)]


def test_each_step_has_a_row_and_the_setting_is_named_once():
    steps = [
        step("a", "EmptyItem a", irreversible=True),
        step("a", "Resize a", waits_for=[KEY + "b", "default/cache.target/main"]),
    ]
    assert rows(plan(result("a", "updated"), steps=steps)) == [
        ("a", "updated", "EmptyItem a, can't be undone"),
        ("", "", "Resize a, after cache.redis_user/b cache.target/main"),
    ]


def test_how_much_a_step_touches_is_told_in_numbers_that_people_read():
    steps = [
        step("a", "DeleteTopic a", affects={"messages": 1204, "partitions": 1}),
        step("b", "EmptyBucket b", irreversible=True, affects={"size_bytes": 12_345_678}, at_least=True),
        step("c", "DropIndex c", affects={"documents": 0, "size_bytes": 249}),
    ]
    assert [text for _, _, text in rows(plan(*(result(n, "retired") for n in "abc"), steps=steps))] == [
        "DeleteTopic a, affects 1,204 messages and 1 partition",
        "EmptyBucket b, affects at least 12.3 MB, can't be undone",
        "DropIndex c, affects 0 documents and 249 bytes",
    ]


def test_what_needs_no_step_is_told_and_what_is_unchanged_is_not():
    found = plan(result("a", "updated", changed=["/labels/x"]), result("b", "retired"), result("c", "unchanged"))
    assert rows(found) == [
        ("a", "updated", "declared otherwise on /labels/x; nothing is to be done there"),
        ("b", "retired", "nothing is to be done there"),
    ]


def test_reasons_are_told_without_the_readers_own_tenant():
    refused = [{"setting": KEY + "a", "reason": "Conflict", "message": "x is declared by default/cache.redis_user/b"}]
    unknown = [{"setting": KEY + "c", "reason": "Timeout", "message": "no answer"}]
    found = plan(result("a", "created"), result("c", "unchanged"), refused=refused, unknown=unknown)
    assert rows(found) == [
        ("a", "created", "refused: Conflict: x is declared by cache.redis_user/b"),
        ("c", "unchanged", "unknown: Timeout: no answer"),
    ]


@pytest.mark.parametrize(
    ("found", "line", "differs"),
    [
        (plan(), "nothing to do; no steps", False),
        (plan(result("a", "unchanged")), "1 unchanged; no steps", False),
        (plan(result("a", "unchanged"), steps=[step("a", "S")]), "1 unchanged; 1 step", True),
        (plan(result("a", "updated")), "1 updated; no steps", True),
        (
            plan(result("a", "created"), steps=[step("a", "S"), step("a", "T", irreversible=True)]),
            "1 created; 2 steps, 1 of which can't be undone",
            True,
        ),
    ],
)
def test_all_of_it_is_told_in_a_line(found, line, differs):
    assert (planning.plan_line(found), planning.differs(found)) == (line, differs)


@pytest.mark.parametrize(
    ("desired", "observed", "told"),
    [
        (90, 60, "/x is 60 there, would be 90"),
        (["a", "b"], ["b", "c"], "/x has c, lacks a there"),
    ],
)
def test_a_difference_says_what_is_there_and_what_would_be(desired, observed, told):
    assert planning.there({"path": "/x", "desired": desired, "observed": observed}) == told


def test_a_diff_of_declarations_leaves_out_what_only_the_daemon_knows():
    before = {"revision": 7, "value": {"n": 1}, "labels": {"a": "b"}, "policy": {}, "status": {}, "depends_on": []}
    document = Document(
        {"type": "t", "name": "n", "value": {"n": 2}, "labels": {"a": "b"}}, "x.yaml document 1, line 1"
    )
    lines = [line.plain for line in planning.declared_diff("t/n", before, document, "updated")]
    assert lines == [
        "--- t/n (revision 7)",
        "+++ t/n (x.yaml document 1, line 1)",
        "@@ -1,4 +1,4 @@",
        " labels:",
        "   a: b",
        " value:",
        "-  n: 1",
        "+  n: 2",
    ]
    assert list(planning.declared_diff("t/n", before, document, "unchanged")) == []

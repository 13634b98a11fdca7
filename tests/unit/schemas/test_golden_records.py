"""Records as they were once written must be read for ever. Files in `golden/` are added to, never changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from controlplane.domain.fold import State, fold
from controlplane.domain.requests import read
from controlplane.domain.status import from_wire, public, to_wire
from controlplane.log.codec import decode, encode
from schemas.event import InfrastructureEvent
from schemas.generate import DIRECTORY
from schemas.metric import InfrastructureMetric
from schemas.record import ChangeRequest
from schemas.setting import Status

GOLDEN = Path(__file__).parent / "golden"
REQUESTS = sorted(GOLDEN.glob("change_request_v1_*.msgpack"))


def written(name: str) -> dict[str, Any]:
    return decode((GOLDEN / f"{name}.msgpack").read_bytes())


def expected(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.expected.json").read_text(encoding="utf-8"))


def test_the_change_requests_of_version_1_fold_to_what_they_always_folded_to():
    state = State()
    verdicts = [fold(state, offset, read(offset, path.read_bytes())) for offset, path in enumerate(REQUESTS)]
    wanted = expected("change_request_v1")
    seen = [{"outcomes": [list(o) for o in v.outcomes], "refusals": [list(r) for r in v.refusals]} for v in verdicts]
    assert seen == wanted["verdicts"]
    entries = {key: entry._asdict() for key, entry in state.entries.items()}
    # Fields that later versions add to an entry may come on top of what was recorded here.
    assert {key: {name: entries[key][name] for name in fields} for key, fields in wanted["entries"].items()} == wanted[
        "entries"
    ]
    assert entries.keys() == wanted["entries"].keys()
    assert {key: list(revisions) for key, revisions in state.history.items()} == wanted["history"]


def test_every_operation_of_a_change_request_is_among_the_golden_records():
    operations = {change["op"] for path in REQUESTS for change in decode(path.read_bytes())["changes"]}
    assert operations == {"declare", "retire", "forget"}


@pytest.mark.parametrize("path", REQUESTS, ids=lambda path: path.stem)
def test_a_golden_change_request_is_valid_by_model_and_schema(path: Path):
    record = decode(path.read_bytes())
    assert ChangeRequest.model_validate(record).model_dump(exclude_unset=True) == record
    Draft202012Validator(json.loads((DIRECTORY / "record.json").read_text())).validate(record)


@pytest.mark.parametrize(("name", "model"), [("event", InfrastructureEvent), ("metric", InfrastructureMetric)])
def test_a_golden_event_and_metric_read_as_they_were_written(name: str, model: Any):
    record = written(f"{name}_v1")
    assert model.model_validate(record).model_dump(mode="json", exclude_unset=True) == expected(f"{name}_v1") == record
    Draft202012Validator(json.loads((DIRECTORY / f"{name}.json").read_text())).validate(record)


@pytest.mark.parametrize(("name", "model"), [("event", InfrastructureEvent), ("metric", InfrastructureMetric)])
def test_what_a_newer_writer_added_to_an_event_or_metric_is_kept(name: str, model: Any):
    record = {**written(f"{name}_v1"), "added_later": {"x": 1}}
    assert model.model_validate(record).model_dump(mode="json", exclude_unset=True) == record


def test_a_golden_status_reads_as_it_was_written():
    record = expected("status_v1")
    status = from_wire(written("status_v1"))
    again = to_wire(status)
    assert {name: again[name] for name in record} == record
    assert from_wire(decode(encode(again))) == status
    Status.model_validate(public(status))


def test_what_a_newer_writer_added_to_a_status_does_not_hinder_reading_it():
    record = written("status_v1")
    newer = {**record, "added_later": 1}
    for part in ("intent", "last_action"):
        newer[part] = {**record[part], "added_later": 1}
    newer["conditions"] = [{**condition, "added_later": 1} for condition in record["conditions"]]
    newer["drift"] = [{**difference, "added_later": 1} for difference in record["drift"]]
    assert from_wire(newer) == from_wire(record)

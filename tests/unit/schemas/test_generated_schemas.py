"""The checked-in JSON Schemas: up to date, sound, and never narrower than those that were published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas import generate
from schemas.access import ACCESS_KINDS
from schemas.compatibility import incompatibilities
from schemas.kinds import KINDS

BASELINE = Path(__file__).parent / "baseline"
PUBLISHED = sorted(path.name for path in BASELINE.glob("*.json"))


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_checked_in_schemas_are_those_of_the_models():
    assert generate.stale() == [], "run: python -m schemas.generate"


def test_every_kind_and_every_public_model_has_a_schema():
    names = {path.stem for path in generate.DIRECTORY.glob("*.json")}
    assert names == {"declaration", "setting", "status", "event", "metric", "record", *KINDS, *ACCESS_KINDS}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_a_published_schema_allowed_is_still_allowed(name: str):
    assert (generate.DIRECTORY / name).exists(), f"{name} was published and is gone"
    assert incompatibilities(read(BASELINE / name), read(generate.DIRECTORY / name)) == []


@pytest.mark.parametrize("name", sorted(generate.PUBLIC))
def test_every_schema_is_a_valid_json_schema(name: str):
    Draft202012Validator.check_schema(read(generate.DIRECTORY / f"{name}.json"))


def test_check_says_what_is_stale_and_writing_mends_it(tmp_path: Path):
    assert generate.write(tmp_path) == sorted(f"{name}.json" for name in generate.PUBLIC)
    (tmp_path / "event.json").write_text("{}", encoding="utf-8")
    (tmp_path / "gone.json").write_text("{}", encoding="utf-8")
    assert generate.stale(tmp_path) == ["event.json", "gone.json"]
    assert generate.write(tmp_path) == ["event.json", "gone.json"]
    assert generate.stale(tmp_path) == []


def test_check_fails_and_names_the_file_when_one_is_stale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    generate.write(tmp_path)
    monkeypatch.setattr(generate.stale, "__defaults__", (tmp_path,))
    assert generate.main(["--check"]) == 0
    (tmp_path / "metric.json").unlink()
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "stale: metric.json\n"

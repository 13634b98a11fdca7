"""The record of a running `up`: believed only while that very process runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.cli import upfile
from controlplane.cli.failure import Failure

URL = "http://127.0.0.1:8470"


def test_a_record_of_a_running_process_is_believed(tmp_path: Path) -> None:
    ours = upfile.this_process(URL, [{"name": "redis"}])
    upfile.write(tmp_path, ours)
    assert upfile.alive(tmp_path) == ours
    assert set(json.loads((tmp_path / "up.json").read_text())) == {"pid", "started_at", "url", "backends", "parts"}


def test_a_process_that_took_over_the_pid_is_not_ours(tmp_path: Path) -> None:
    ours = upfile.this_process(URL, [])
    upfile.write(tmp_path, replace(ours, started_at=ours.started_at - 3600))
    assert upfile.read(tmp_path) is not None
    assert upfile.alive(tmp_path) is None


def test_no_record_is_no_process(tmp_path: Path) -> None:
    upfile.remove(tmp_path)
    assert upfile.alive(tmp_path / "nowhere") is None


def test_a_record_that_makes_no_sense_is_said(tmp_path: Path) -> None:
    for text in ("{", "{}", "[]", "7"):
        (tmp_path / "up.json").write_text(text)
        with pytest.raises(Failure):
            upfile.read(tmp_path)

"""The configuration file, and what the command line says over it."""

from pathlib import Path

import pytest

from controlplane.cli import configuration, upfile
from controlplane.cli.failure import Failure


def test_the_command_line_goes_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data_dir: /x\nhttp: {port: 1, host: localhost}\n")
    config = configuration.load(file, {"data_dir": None, "http": {"port": 2, "host": None}})
    assert (str(config.data_dir), config.http.port, config.http.host) == ("/x", 2, "localhost")


def test_nothing_given_is_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert configuration.load(tmp_path / "empty.yaml") == configuration.load(None)


def test_every_fault_of_the_file_is_told_with_its_path(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("http: {port: many}\nloq: {}\n")
    with pytest.raises(Failure) as caught:
        configuration.load(file)
    assert {path for path, _ in caught.value.faults} == {"http.port", "loq"}


@pytest.mark.parametrize("text", ["- a\n", "a: [\n", None])
def test_a_file_that_is_no_map_or_isnt_there_is_said(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "c.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(Failure) as caught:
        configuration.load(file)
    assert str(file) in caught.value.message


def test_without_a_file_it_is_that_of_what_runs_on_the_data_directory(tmp_path: Path) -> None:
    parts = {"log": {"url": "kafka://127.0.0.1:9092"}, "projection": {"url": "http://127.0.0.1:9200"}}
    assert configuration.of_running(None, tmp_path).log.url != parts["log"]["url"], "nothing runs there"
    upfile.write(tmp_path, upfile.this_process("http://127.0.0.1:8470", [], parts))
    found = configuration.of_running(None, tmp_path, {"log": {"url": None}, "projection": {"url": "http://other:9200"}})
    assert (found.log.url, found.projection.url) == ("kafka://127.0.0.1:9092", "http://other:9200")
    assert found.data_dir == tmp_path
    file = tmp_path / "coreplane.yaml"
    file.write_text("log: {url: 'kafka://elsewhere:9092'}")
    assert configuration.of_running(file, tmp_path).log.url == "kafka://elsewhere:9092"

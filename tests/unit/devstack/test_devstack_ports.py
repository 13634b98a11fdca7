"""Ports: free ones, and the same ones again."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.devstack.ports import LOOPBACK, NAME, PortBook, any_free, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    """A port somebody listens on."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_somebody_listens_on_is_not_free(taken: int):
    assert not is_free(taken)
    assert is_free(any_free())


def test_the_preferred_port_is_chosen_while_it_is_free(tmp_path: Path):
    wished = any_free()
    assert PortBook(tmp_path).choose("redis", wished) == wished


def test_another_port_is_chosen_when_the_preferred_one_is_taken(tmp_path: Path, taken: int):
    assert PortBook(tmp_path).choose("redis", taken) != taken


def test_a_chosen_port_is_kept_for_the_next_run(tmp_path: Path, taken: int):
    first = PortBook(tmp_path).choose("redis", taken)
    assert PortBook(tmp_path).choose("redis", any_free()) == first


def test_a_remembered_port_that_was_taken_meanwhile_is_given_up(tmp_path: Path, taken: int):
    (tmp_path / NAME).write_text(json.dumps({"ports": {"redis": taken}}))
    wished = any_free()
    assert PortBook(tmp_path).choose("redis", wished) == wished


def test_two_backends_never_get_one_port(tmp_path: Path):
    book, wished = PortBook(tmp_path), any_free()
    assert book.choose("redis", wished) == wished
    assert book.choose("memcached", wished) != wished


@pytest.mark.parametrize("rubbish", ["", "{", "[]", '{"ports": 3}', '{"ports": {"redis": "x"}}'])
def test_an_unreadable_book_is_written_anew(tmp_path: Path, rubbish: str):
    (tmp_path / NAME).write_text(rubbish)
    chosen = PortBook(tmp_path).choose("redis", any_free())
    assert json.loads((tmp_path / NAME).read_text())["ports"]["redis"] == chosen

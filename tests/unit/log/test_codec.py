"""Records as msgpack maps."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.log.codec import Undecodable, decode, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_every_map_comes_back_as_it_was(record):
    assert decode(encode(record)) == record


@given(st.binary(max_size=60))
def test_any_bytes_are_a_map_or_undecodable(data):
    try:
        record = decode(data)
    except Undecodable:
        return
    assert isinstance(record, dict)


@pytest.mark.parametrize("value", [7, "text", [1, 2], None])
def test_what_is_no_map_is_undecodable(value):
    with pytest.raises(Undecodable, match="not a msgpack map"):
        decode(msgpack.packb(value))


def test_a_truncated_record_is_undecodable():
    data = encode({"a": [1, 2, 3]})
    for length in range(len(data)):
        with pytest.raises(Undecodable):
            decode(data[:length])


def test_a_record_nested_beyond_all_bounds_is_undecodable():
    with pytest.raises(Undecodable):
        decode(b"\x81\xa1a" * 100_000 + b"\x01")


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_other_programs_read_our_records_with_msgpack_and_we_theirs(record):
    assert msgpack.unpackb(encode(record)) == record
    assert decode(msgpack.packb(record)) == record

"""Two identities are the same run exactly when they say the same."""

import hashlib
import math
from types import MappingProxyType

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attnlab.runs.identity import canonical, identity_hash, plain

LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
IDENTITIES = st.dictionaries(
    st.text(),
    st.recursive(
        LEAVES | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=8,
    ),
)


def test_the_hash_is_of_sorted_compact_json():
    assert canonical({"b": [1, 2.5], "a": None}) == b'{"a":null,"b":[1,2.5]}'
    whole = hashlib.sha256(b'{"a":null,"b":[1,2.5]}').hexdigest()
    assert identity_hash({"b": [1, 2.5], "a": None}) == whole[:10]


@given(IDENTITIES)
def test_the_order_of_keys_does_not_count(identity):
    turned = dict(reversed(identity.items()))
    assert canonical(turned) == canonical(identity)


@given(IDENTITIES)
def test_an_identity_survives_its_file(identity):
    written = yaml.safe_dump(plain(identity), sort_keys=False)
    assert canonical(yaml.safe_load(written)) == canonical(identity)


def test_lists_and_tuples_and_every_mapping_are_alike():
    assert canonical(MappingProxyType({"a": (1, 2)})) == canonical({"a": [1, 2]})


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (None, "null"), (0, [])])
def test_different_values_give_different_runs(one, other):
    assert identity_hash({"a": one}) != identity_hash({"a": other})


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused_with_its_key(number):
    with pytest.raises(ValueError, match=r"identity\.a\.b\[1\]: (nan|-?inf) cannot be written"):
        canonical({"a": {"b": [0, number]}})


@pytest.mark.parametrize("value", [{1, 2}, b"a", object(), np.float64(1), np.int64(1)])
def test_what_is_not_plain_is_refused_with_its_key(value):
    with pytest.raises(TypeError, match=rf"identity\.a: {type(value).__name__} is no plain value"):
        identity_hash({"a": value})


def test_a_key_that_is_no_text_is_refused():
    with pytest.raises(TypeError, match=r"identity\.a: the key 1 is int, expected str"):
        canonical({"a": {1: "b"}})

"""Two identities are the same run exactly when they say the same."""

import hashlib
import math
from collections.abc import Callable
from functools import partial
from types import MappingProxyType

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from attnlab.run_record.identity import canonical_json, identity_hash, plain_config
from tests.depth import examples
from tests.refused_calls import refused_calls

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
    assert canonical_json({"b": [1, 2.5], "a": None}) == b'{"a":null,"b":[1,2.5]}'
    digest = hashlib.sha256(b'{"a":null,"b":[1,2.5]}').hexdigest()
    assert identity_hash({"b": [1, 2.5], "a": None}) == digest[:10]


@examples(20)
@given(IDENTITIES)
def test_the_order_of_keys_does_not_count_and_an_identity_survives_its_file(identity):
    turned = dict(reversed(identity.items()))
    assert canonical_json(turned) == canonical_json(identity)
    written = yaml.safe_dump(plain_config(identity), sort_keys=False)
    assert canonical_json(yaml.safe_load(written)) == canonical_json(identity)


def test_lists_and_tuples_and_every_mapping_are_alike():
    assert canonical_json(MappingProxyType({"a": (1, 2)})) == canonical_json({"a": [1, 2]})


@pytest.mark.parametrize(("one", "other"), [(1, 1.0), (1, True), (None, "null"), (0, [])])
def test_different_values_give_different_runs(one, other):
    assert identity_hash({"a": one}) != identity_hash({"a": other})


def test_what_is_no_number_is_refused_with_its_key():
    numbers = {"nan": math.nan, "inf": math.inf, "minus_inf": -math.inf}
    calls = {name: partial(canonical_json, {"a": {"b": [0, n]}}) for name, n in numbers.items()}
    refused_calls("runs.identity.{}", calls)


def test_what_is_not_plain_is_refused_with_its_key():
    values = {"set": {1, 2}, "bytes": b"a", "object": object()}
    values |= {"float64": np.float64(1), "int64": np.int64(1)}
    calls: dict[str, Callable[[], object]] = {
        name: partial(identity_hash, {"a": value}) for name, value in values.items()
    }
    calls["key"] = partial(canonical_json, {"a": {1: "b"}})
    refused_calls("runs.identity.{}", calls, kind=TypeError)

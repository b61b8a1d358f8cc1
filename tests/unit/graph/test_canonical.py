from __future__ import annotations

import pytest

from pixloom.graph import canonical_json, digest_of


def test_order_of_keys_does_not_matter() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})


def test_order_of_elements_matters() -> None:
    assert digest_of([1, 2]) != digest_of([2, 1])


def test_integral_floats_are_integers() -> None:
    assert canonical_json({"a": [1.0, -0.0, 2.5, 1e300]}) == b'{"a":[1,0,2.5,1e+300]}'


def test_booleans_are_no_numbers() -> None:
    assert digest_of({"a": True}) != digest_of({"a": 1})


def test_text_is_utf8() -> None:
    assert canonical_json({"é": "ü/"}) == '{"é":"ü/"}'.encode()


def test_not_a_number_has_no_canonical_form() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_digest_is_the_sha256_of_the_canonical_form() -> None:
    assert digest_of({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

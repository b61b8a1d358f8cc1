from __future__ import annotations

import pytest

from pixloom.errors import InvalidError
from pixloom.graph import parse_json, parse_yaml


def refusal(data: bytes) -> list[tuple[str, str]]:
    with pytest.raises(InvalidError) as caught:
        parse_json(data)
    return [(problem.pointer, problem.reason) for problem in caught.value.problems]


def test_json_object_is_read_as_plain_values() -> None:
    expected = {"a": [1, 2.5, None, True, "é"], "b": {}}
    assert expected == parse_json('{"a": [1, 2.5, null, true, "é"], "b": {}}'.encode())


def test_byte_order_mark_is_skipped() -> None:
    assert parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_every_bad_value_is_reported_at_once_with_its_place() -> None:
    data = b'{"a": 1, "a": 2, "b": {"c": NaN, "d": 1e999, "e": -Infinity, "f": 123456789012345678901234}}'
    expected = [
        ("/a", "DUPLICATE_KEY"),
        ("/b/c", "NOT_A_NUMBER"),
        ("/b/d", "NUMBER_OUT_OF_RANGE"),
        ("/b/e", "NOT_A_NUMBER"),
        ("/b/f", "NUMBER_OUT_OF_RANGE"),
    ]
    assert expected == refusal(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"a":', ("", "SYNTAX")),
        (b"[1]", ("", "NOT_AN_OBJECT")),
        (b'{"a": "\xff"}', ("", "INVALID_UTF8")),
        (b'{"a": "\\u0000"}', ("/a", "INVALID_TEXT")),
        (b'{"a": "\\ud800"}', ("/a", "INVALID_TEXT")),
        (b'{"a/b": {"~": "\\u0000"}}', ("/a~1b/~0", "INVALID_TEXT")),
        (b'{"a": "' + b"x" * 65_537 + b'"}', ("/a", "STRING_TOO_LONG")),
        (b'{"a": "' + "é".encode() * 32_769 + b'"}', ("/a", "STRING_TOO_LONG")),
        (b'{"a": 9223372036854775808}', ("/a", "NUMBER_OUT_OF_RANGE")),
        (b"[" * 100_000, ("", "TOO_DEEP")),
        (b'{"a": ' + b"[" * 32 + b"]" * 32 + b"}", ("/a" + "/0" * 31, "TOO_DEEP")),
        (b'{"a": 1}' + b" " * 4 * 1024 * 1024, ("", "TOO_LARGE")),
    ],
)
def test_unreadable_document_is_refused_with_its_own_reason(data: bytes, expected: tuple[str, str]) -> None:
    assert [expected] == refusal(data)


def test_nesting_and_strings_up_to_the_limit_are_read() -> None:
    parse_json(b'{"a": ' + b"[" * 31 + b"]" * 31 + b', "b": "' + b"x" * 65_536 + b'"}')


def test_syntax_error_names_line_and_column() -> None:
    with pytest.raises(InvalidError, match="line 2, column 8"):
        parse_json(b'{\n  "a": ?}')


def test_too_large_document_has_the_reason_of_its_own() -> None:
    with pytest.raises(InvalidError) as caught:
        parse_json(b" " * (4 * 1024 * 1024 + 1))
    assert caught.value.reason == "TOO_LARGE"


def test_yaml_says_what_json_can_say() -> None:
    text = "name: x\ndate: 2024-01-01\nnodes:\n  - &a {id: one}\n  - *a\n"
    expected = {"name": "x", "date": "2024-01-01", "nodes": [{"id": "one"}, {"id": "one"}]}
    assert expected == parse_yaml(text)


@pytest.mark.parametrize(
    ("text", "reason", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "DUPLICATE_KEY", "line 3, column 1"),
        ("a:\n  b: 1\n  b: 2\n", "DUPLICATE_KEY", "line 3, column 3"),
        ("a: [1,\n", "SYNTAX", "line 2, column 1"),
        ("a: 1\n--- \nb: 2\n", "SYNTAX", "line 2"),
        ("a: !!python/object:os.system x", "SYNTAX", "line 1, column 4"),
        ("a: !!binary aGk=", "SYNTAX", "binary"),
        ("a: .nan", "NOT_A_NUMBER", "/a"),
        ("1: x", "KEY_NOT_TEXT", "/1"),
        ("a: &a [*a]", "TOO_DEEP", "/a"),
        ("- 1", "NOT_AN_OBJECT", "object"),
        ("? [1]\n: 2\n", "SYNTAX", "line 1"),
    ],
)
def test_yaml_beyond_json_is_refused(text: str, reason: str, message: str) -> None:
    with pytest.raises(InvalidError, match=message) as caught:
        parse_yaml(text)
    assert {problem.reason for problem in caught.value.problems} == {reason}


def test_yaml_that_grows_out_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(InvalidError) as caught:
        parse_yaml("\n".join(lines))
    assert caught.value.reason == "TOO_LARGE"

"""JSON and YAML that nobody meant well: a sentence, soon, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from atypia.core.config import load_config
from atypia.core.errors import InputError
from atypia.core.files import read_json, read_yaml
from atypia.core.parsing import parse_json, parse_yaml


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b'{"a": NaN}', "NaN is no finite number"),
        (b"[-Infinity]", "-Infinity is no finite number"),
        (b"[1e999]", "1e999 is no finite number"),
        (b"9" * 5000, "too many digits"),
        (b"[-9223372036854775809]", "too many digits"),
        (b"[" * 100_000, "nests too deeply"),
        (b'{"a":' * 100_000, "nests too deeply"),
        (rb'["\ud800"]', "surrogates"),
        (b'"\xff"', "utf-8"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_no_json_of_ours_is_a_sentence(data: bytes, what: str, tmp_path: Path) -> None:
    (file := tmp_path / "x.json").write_bytes(data)
    with pytest.raises(InputError, match=rf"x\.json: expected JSON but .*{what}"):
        read_json(file)


def test_json_is_read() -> None:
    text = '\ufeff{"a": [1, -2.5e3, 9223372036854775808, null, true], "µ": "😀\\ud83d\\ude00"}'
    expected = {"a": [1, -2500.0, 2**63, None, True], "µ": "😀😀"}
    assert parse_json(text.encode("utf-8"), "x") == expected


def bomb(levels: int, form: str) -> str:
    """Nine aliases in each level of the one above."""
    lines = ["a0: &a0 {k: 1}"]
    for i in range(levels):
        lines.append(f"a{i + 1}: &a{i + 1} " + form.format(", ".join([f"*a{i}"] * 9)))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (bomb(12, "[{}]"), "aliases"),
        (bomb(12, "{{<<: [{}]}}"), "aliases"),
        ("a: &a [*a]", "aliases"),
        ("[" * 20_000, "nests too deeply"),
        ("a: " + "9" * 5000, "digits"),
        ("day: 2020-99-99", "month"),
        ("a: !!python/object/apply:os.system [ls]", "tag"),
        ("? [a]\n: b", "unhashable"),
    ],
)
def test_what_is_no_yaml_of_ours_is_a_sentence(text: str, what: str, tmp_path: Path) -> None:
    (file := tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=f"(?s)expected YAML but got: .*{what}"):
        read_yaml(file)
    with pytest.raises(InputError, match=r"x\.yaml"):
        load_config(str(file))


def test_yaml_with_aliases_is_read() -> None:
    text = "a: &a {lr: 0.1, on: 2}\nb: {<<: *a, lr: 0.2}\nc: [*a, *a]"
    same = {"lr": 0.1, True: 2}
    assert parse_yaml(text, "x") == {"a": same, "b": {"lr": 0.2, True: 2}, "c": [same, same]}
    assert parse_yaml("", "x") is None
    assert parse_yaml(b"\xef\xbb\xbfa: \xc2\xb5", "x") == {"a": "µ"}

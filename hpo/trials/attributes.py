"""JSON values as attributes of Optuna studies and trials, in chunks that every database takes.

Some databases cut or refuse texts above 65,535 bytes, so a longer value is spread over several
attributes; over few, because each of them is a transaction. Two formats are stored, and both are an
interface: `read` reads either.

==================  ================================  ====================================
written by          the attribute `key`               the attributes `key:0`, `key:1`, ...
==================  ================================  ====================================
`split`             the value itself if it is short,  chunks of its JSON text if it is long
                    else `{"chunks": n}`
`split_numbered`    the number of chunks, n           chunks of its JSON text, always
==================  ================================  ====================================

Studies of `optimize` are stored in the first format, trials of the Optuna sampler in the second.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["LONGEST_VALUE", "read", "read_if_whole", "split", "split_numbered"]

LONGEST_VALUE = 60_000  # characters, all ASCII; MySQL cuts or refuses texts above 65,535 bytes


def split(key: str, value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the attributes that together hold `value`: itself if it is short, else chunks.

    The attribute under `key` comes last: once it is there, so are the others.

    Args:
        key: Name of the value.
        value: JSON object to store.

    Returns:
        Names and contents, to be written in this order.

    Example:
        >>> split("told", {"loss": 0.5})
        [('told', {'loss': 0.5})]
        >>> [name for name, _ in split("told", {"text": "x" * 75_000})]
        ['told:0', 'told:1', 'told:2', 'told']
    """
    text = json.dumps(value)
    if len(text) <= LONGEST_VALUE:
        return [(key, value)]
    chunks = _chunks(text)
    return [*_numbered(key, chunks), (key, {"chunks": len(chunks)})]


def split_numbered(key: str, value: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the attributes that together hold `value`: chunks, and last their number.

    Args:
        key: Name of the value.
        value: JSON object to store.

    Returns:
        Names and contents, to be written in this order.

    Example:
        >>> split_numbered("asked", {"x": 1})
        [('asked:0', '{"x": 1}'), ('asked', 1)]
    """
    chunks = _chunks(json.dumps(value))
    return [*_numbered(key, chunks), (key, len(chunks))]


def read(attributes: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Return the value stored under `key` in either format; None if it is not there.

    Args:
        attributes: All attributes of the study or trial.
        key: Name of the value.

    Raises:
        KeyError: If a chunk is missing.
        ValueError: If the chunks together are no JSON.

    Example:
        >>> read(dict(split("told", {"loss": 0.5})), "told")
        {'loss': 0.5}
        >>> read(dict(split_numbered("asked", {"x": 1})), "asked")
        {'x': 1}
    """
    value: Any = attributes.get(key)
    if value is None:
        return None
    if type(value) is int:
        count = value
    elif list(value) == ["chunks"]:
        count = value["chunks"]
    else:
        short: dict[str, Any] = value
        return short
    whole: dict[str, Any] = json.loads("".join(attributes[f"{key}:{i}"] for i in range(count)))
    return whole


def read_if_whole(attributes: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Return the value stored under `key`; None also while another process rewrites it.

    Args:
        attributes: All attributes of the study or trial.
        key: Name of the value.

    Example:
        >>> read_if_whole({"asked": 2, "asked:0": '{"x": '}, "asked") is None
        True
    """
    try:
        return read(attributes, key)
    except (KeyError, ValueError):
        return None


def _chunks(text: str) -> list[str]:
    # Each chunk is a JSON text inside a JSON value; escapes may double it, hence half the length.
    width = LONGEST_VALUE // 2 - 1
    return [text[start : start + width] for start in range(0, len(text), width)]


def _numbered(key: str, chunks: list[str]) -> list[tuple[str, Any]]:
    return [(f"{key}:{index}", chunk) for index, chunk in enumerate(chunks)]

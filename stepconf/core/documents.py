"""YAML and JSON that others may have written: read within bounds, or refused in one sentence.

What is read here is walked by recursion later, and written again. So both end at `MAX_DEPTH`, and YAML, which can
say in a line what fills a memory, is plain here: at most `MAX_YAML` characters, no aliases, no tags.
"""

import json
from hashlib import blake2b
from typing import Any

import yaml

MAX_DEPTH = 100  # lists and objects in one another; Python's own limit is some hundreds
_BITS = 64
MAX_YAML = 100_000  # characters: about a second of PyYAML's time; a recipe has some thousands


def read_json(text: str | bytes) -> Any:
    """What a text of JSON holds.

    Raises:
        ValueError: it is not JSON, not UTF-8, or nested more than `MAX_DEPTH` levels deep.
    """
    if isinstance(text, bytes):
        text = text.decode()
    try:
        value = json.loads(text)
    except RecursionError:
        raise _too_deep() from None
    if text.count("[") + text.count("{") > MAX_DEPTH:  # else it cannot be deep; rows are many
        _check_depth(value)
    return value


def read_object(text: str | bytes) -> dict[str, Any]:
    """The object that a text of JSON holds; raises ValueError as `read_json`, and where it is no object."""
    value = read_json(text)
    if not isinstance(value, dict):
        raise ValueError("it is JSON, but no object")
    return value


def manifest_checksum(manifest: dict[str, Any]) -> str:
    """The BLAKE2b hash (128 bits, hex) of all else in a manifest."""
    rest = {key: value for key, value in manifest.items() if key != "checksum"}
    return blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=16).hexdigest()


def read_yaml(text: str) -> Any:
    """What a text of YAML holds.

    Raises:
        ValueError: it is not YAML, or over one of the bounds above.
    """
    if len(text) > MAX_YAML:
        raise ValueError(f"it has {len(text):,} characters, more than {MAX_YAML:,}")
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 a safe one
    except (yaml.YAMLError, OverflowError) as error:  # the second of a number like 1:59:59 without end
        raise ValueError(str(error)) from error


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """The keys of two documents that differ, in order, each with both of its values: `a.b (there 1, now 2)`."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys(), key=str)
        named = [(key, f"{prefix}.{key}" if prefix else str(key)) for key in keys]
        return [one for key, name in named for one in differences(old.get(key), new.get(key), name)]
    return [f"{prefix} (there {old!r}, now {new!r})"] if old != new else []


class _PlainLoader(yaml.SafeLoader):
    """Refuses what makes a small file a large value, before it is built."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or event.tag is not None:
            raise ValueError(
                f"line {event.start_mark.line + 1} has an alias, an anchor or a tag; none is read"
            )
        if self._depth == MAX_DEPTH:
            raise _too_deep()
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_yaml_int(self, node: Any) -> int:
        value = int(super().construct_yaml_int(node))
        if (
            value.bit_length() > _BITS
        ):  # in base 16 and 60 there is no limit to what Python reads and cannot print
            raise ValueError(f"line {node.start_mark.line + 1} has a number of more than {_BITS} bits")
        return value


_PlainLoader.add_constructor("tag:yaml.org,2002:int", _PlainLoader.construct_yaml_int)


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        held = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)
        ]
        level = [inner for values in held for inner in values]
        if not held:
            return
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"lists and objects are nested in one another more than {MAX_DEPTH} levels deep")

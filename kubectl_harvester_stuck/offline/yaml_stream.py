"""From bytes to Kubernetes objects, within bounds of size, depth and time.

kubectl and support bundles write lists in one shape: `items:`, then every item from a `- ` in the
first column on. Such a list is cut into its items without being parsed, so that only the items
that are wanted cost anything, and memory is that of one item. Everything else is parsed whole.

Aliases are refused: nobody dumps objects with them, and they are how a small file becomes a large
one. libyaml itself refuses more than 1,000 levels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import yaml

from kubectl_harvester_stuck.errors import DumpError
from kubectl_harvester_stuck.k8s import nesting

MIB = 1 << 20
ITEM_LIMIT = 16 * MIB
"""The largest object that is read; etcd holds no object larger than 1.5 MiB."""

ITEMS_LIMIT = 250_000
"""How many items of lists one file may hold; each takes some time to be parsed."""

DOCUMENT_LIMIT = 64 * MIB
"""How large YAML documents of another shape may be, all of a file together."""

FIELDS_LIMIT = 1_000_000
"""How many lines and commas one YAML document may have; it takes time to parse each of them."""

JSON_LIMIT = 128 * MIB
"""The largest file of JSON that is read; it takes several times as much memory."""

DEPTH_LIMIT = nesting.DEPTH
"""How deep an object may be nested."""

_BLOCK = MIB
# No key of Kubernetes begins otherwise, but a string may go on with a line break of Unicode. A
# comment belongs to what stands before it.
_LINE = re.compile(rb"\n(?=[!\"$-~])")
_CONTENT = re.compile(rb"^[ \t]*[^#\s]", re.M)
_TYPE = re.compile(rb"^(apiVersion|kind): ([\w./-]+)\s*$", re.M)
_METADATA = re.compile(rb"^metadata:[ \t]*\r?\n(?:[ \t]+.*\n|\r?\n)*", re.M)
_NAMES = re.compile(
    rb"^  (name|namespace|uid|resourceVersion|deletionTimestamp): ([\w.:-]+)\s*$", re.M
)
_MARK = re.compile(rb"^(?:items:[ \t]*\r?\n|---(?=\s)|\.\.\.[ \t]*\r?\n)", re.M)
_LONGEST_MARK = 4096
_ALIAS = re.compile(r"(?:^|[\s,\[{])[&*][^\s,\]}]", re.M)

_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Wanted = Callable[[bytes], bool]


class _Loader(_BASE):  # type: ignore[misc]
    """The safe loader with the scalars of YAML 1.2, as Go writes them.

    A time stays text, `no` is a name, and `1e+06` is a number.
    """

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - read by PyYAML


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ("~", "n", "N", "")),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: _number(node.value))


def _number(text: str) -> int | float:
    value = float(text)
    return int(value) if value.is_integer() and abs(value) < 1 << 63 else value


@dataclass(frozen=True)
class YamlChunk:
    """A part of a document: one item of its list, or all of it."""

    document: int
    text: bytes
    is_item: bool

    def parse(self, name: str) -> Any:
        """What it holds; a TooDeepObject where it is an object that is. Raises DumpError."""
        try:
            value = parse_yaml(self.text, name)
        except TooDeepError:
            return _left_of(self.text, name, is_item=self.is_item)
        if not self.is_item:
            return value
        if not isinstance(value, list) or len(value) != 1:
            raise DumpError(f"{name}: an item of its list is not one object")
        return value[0]


class TooDeepError(DumpError):
    """An object is nested deeper than can be read."""


def _left_of(text: bytes, name: str, *, is_item: bool) -> nesting.TooDeepObject:
    """Type and metadata of an object in block style that is nested too deep. Raises DumpError."""
    # In an item, everything stands two columns to the right.
    lines = re.sub(rb"^(?:- |  )", b"", text, flags=re.M) if is_item else text
    found = nesting.TooDeepObject(
        {key.decode(): value.decode() for key, value in _TYPE.findall(lines)}
    )
    block = meta[0] if (meta := _METADATA.search(lines)) else b"metadata:"
    try:
        metadata = parse_yaml(block, name)["metadata"]
    except TooDeepError:
        found.metadata_is_whole = False
        metadata = {key.decode(): value.decode() for key, value in _NAMES.findall(block)}
    if not isinstance(metadata, dict):
        raise TooDeepError(f"{name}: an object is nested deeper than {DEPTH_LIMIT} levels")
    found["metadata"] = metadata
    return found


def pieces(stream: BinaryIO, name: str) -> Iterator[YamlChunk]:
    """The items of the lists in a stream of YAML, and what else there is. Raises DumpError."""
    cutter = _Cutter(stream, name)
    document, rest, items, marks, size = 0, bytearray(), 0, 0, 0
    while not cutter.is_over:
        block, mark = cutter.until(_MARK, DOCUMENT_LIMIT)
        rest += block
        marks, size = marks + 1, size + len(block)
        if marks > ITEMS_LIMIT:
            raise DumpError(f"{name} holds more than {ITEMS_LIMIT} documents")
        if size > DOCUMENT_LIMIT:
            raise DumpError(f"{name}: its documents are larger than {DOCUMENT_LIMIT // MIB} MiB")
        if mark.startswith(b"items:"):
            rest += mark
            while cutter.starts(b"- ", b"#"):
                is_item = cutter.starts(b"- ")
                item, end = cutter.until(_LINE, ITEM_LIMIT)
                items += is_item
                if items > ITEMS_LIMIT:
                    raise DumpError(f"{name} holds more than {ITEMS_LIMIT} objects")
                if is_item:
                    yield YamlChunk(document, item + end, is_item=True)
        elif mark.startswith(b"---") or cutter.is_over:
            if _CONTENT.search(rest):
                yield YamlChunk(document, bytes(rest), is_item=False)
            document, rest = document + 1, bytearray()
    if _CONTENT.search(rest):
        yield YamlChunk(document, bytes(rest), is_item=False)


class _Cutter:
    """Cuts a stream at marks that stand at the start of a line, with one read in memory."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._buffer = bytearray()
        self._start = 0
        self._is_read = False
        self._fresh = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing is left."""
        return not self._has(1)

    def starts(self, *words: bytes) -> bool:
        """Whether one of the words comes next."""
        self._has(max(map(len, words)))
        return any(self._buffer.startswith(word, self._start) for word in words)

    def until(self, mark: re.Pattern[bytes], limit: int) -> tuple[bytes, bytes]:
        """What stands before the next mark, and the mark; at the end of the stream without one."""
        searched = self._start
        while True:
            found = mark.search(self._buffer, searched)
            if found is not None:
                block = bytes(self._buffer[self._start : found.start()])
                text = found[0]
                self._start = found.end()
                del found
                return block, text
            # A mark may have been read in part: it is no longer than the last line, or than this.
            tail = max(self._buffer.rfind(b"\n", self._start), len(self._buffer) - _LONGEST_MARK)
            left = len(self._buffer) - max(tail, self._start)
            if not self._read():
                block, self._start = bytes(self._buffer[self._start :]), len(self._buffer)
                return block, b""
            searched = max(len(self._buffer) - self._fresh - left, self._start)
            if len(self._buffer) - self._start > limit:
                raise DumpError(f"{self._name}: an object is larger than {limit // MIB} MiB")

    def _has(self, size: int) -> bool:
        while len(self._buffer) - self._start < size:
            if not self._read():
                return False
        return True

    def _read(self) -> bool:
        """Read on; what was handed out is let go."""
        if self._is_read:
            return False
        chunk = self._stream.read(_BLOCK)
        self._is_read = not chunk
        # One character stays, so that the start of a line is known as such.
        done = max(self._start - 1, 0)
        del self._buffer[:done]
        self._start -= done
        self._buffer += chunk
        self._fresh = len(chunk)
        return bool(chunk)


def parse_yaml(text: bytes, name: str) -> Any:
    """One YAML document. Raises DumpError."""
    if text.count(b"\n") + text.count(b",") > FIELDS_LIMIT:
        raise DumpError(f"{name}: an object has more than {FIELDS_LIMIT} fields")
    try:
        decoded = text.decode("utf-8")
        if _ALIAS.search(decoded) and _has_alias(decoded):
            raise DumpError(f"{name}: it has YAML aliases, which no dump of objects has")
        return checked(yaml.load(decoded, Loader=_Loader), name)  # noqa: S506 - a safe loader
    except UnicodeDecodeError:
        raise DumpError(f"{name} is not UTF-8: convert it first") from None
    except yaml.YAMLError as error:
        # libyaml itself refuses more than 1,000 levels.
        kind = TooDeepError if "nesting depth" in str(error) else DumpError
        raise kind(f"{name} is not valid YAML: {_where(error)}") from None
    except RecursionError:
        raise TooDeepError(f"{name}: an object is nested too deep") from None
    except (ValueError, OverflowError, TypeError) as error:
        raise DumpError(f"{name} is not valid YAML: {str(error)[:80]}") from None


def _has_alias(text: str) -> bool:
    """Whether there really is an anchor or an alias; scripts in strings have such characters."""
    return any(
        isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None)
        for event in yaml.parse(text, Loader=_BASE)
    )


def _where(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = str(getattr(error, "problem", None) or error).splitlines()[0][:80]
    return f"{problem} (line {mark.line + 1})" if mark else problem


def parse_json(text: bytes, name: str) -> Iterator[Any]:
    """The JSON documents that stand one after the other. Raises DumpError."""
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError:
        raise DumpError(f"{name} is not UTF-8: convert it first") from None
    is_shallow = nesting.is_shallow(text)
    if not is_shallow:
        decoded = nesting.cut(text).decode("utf-8")
        if not decoded.strip():
            raise DumpError(f"{name} is not valid JSON: its brackets are not closed")
    decoder, position = json.JSONDecoder(), 0
    space = re.compile(r"\s*")
    while True:
        found = space.match(decoded, position)
        position = found.end() if found else position
        if position == len(decoded):
            return
        try:
            value, position = decoder.raw_decode(decoded, position)
        except (ValueError, RecursionError) as error:
            raise DumpError(f"{name} is not valid JSON: {str(error)[:80]}") from None
        found = checked(value, name)
        found = found if is_shallow else nesting.left_of(found)
        if isinstance(found, nesting.TooDeepObject) and "name" not in found["metadata"]:
            raise TooDeepError(f"{name}: an object is nested deeper than {DEPTH_LIMIT} levels")
        yield found


def checked(value: Any, name: str) -> Any:
    """`value` with every key as text. Raises DumpError where it is nested too deep."""

    def look(item: Any, depth: int) -> Any:
        if depth > DEPTH_LIMIT:
            raise TooDeepError(f"{name}: an object is nested deeper than {DEPTH_LIMIT} levels")
        if isinstance(item, dict):
            return {str(key): look(one, depth + 1) for key, one in item.items()}
        if isinstance(item, list):
            return [look(one, depth + 1) for one in item]
        return item

    return look(value, 0)

"""The items of a list, cut out of the bytes of an answer while it comes.

What the API server writes is followed: one object with the items as its last field. Everything
else, and what is cut short, is a ValueError, never a list that is shorter: then the plain decoder
has to see the whole of it. The memory that is taken depends on the largest item alone.

An item is what lies between two openings that are alike, which is found without a look at what
is in it; whoever reads it says whether it is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from kubectl_harvester_stuck.k8s import nesting

T = TypeVar("T")

LARGEST_HEAD = 1 << 20
"""Bytes before the first item: kind, metadata and columns."""

LARGEST_ITEM = 16 << 20
"""Bytes of one item; etcd takes objects of 1.5 MiB unless it is told otherwise."""

_STEP = 1 << 16
"""Bytes that are looked at together, at least."""

_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.S)
"""A string or a bracket; a quotation mark alone begins a string whose end has not come yet."""

_OPENING = re.compile(
    rb'\{(?:"kind":"[^"\\]*","apiVersion":"[^"\\]*","metadata":\{"name":"|"[^"\\]*":)'
)
"""How an item begins, with what nothing else in it begins with, or with its first field."""

_NOWHERE = b"\x00"
"""Bytes that no JSON holds."""

_BEGINS_ARRAY = re.compile(rb"\s*:\s*\[")
_BLANK = b" \t\r\n"
_ALL_BUT_MARKS = bytes(set(range(256)) - set(b'"{}[]'))


class ListStream:
    """The items of one answer; `head` is the rest of it.

    Raises ValueError for what is not a list whose items are its last field.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._text = b""
        self._at = 0
        self._is_over = False
        self._has_items = True
        self.head: Mapping[str, Any] = self._read_head()

    def items(self, read: Callable[[bytes], T]) -> Iterator[T]:
        """What `read` makes of the text of each item; iterate over it once.

        `read` raises ValueError for what is not one whole object. Raises ValueError at an item that
        it does not take, and after the last one if the list is not closed there.
        """
        if not self._has_items:
            return
        separator = b""
        follows = self._next()
        while follows != b"]":
            try:
                end = self._quick_end(separator)
                value = read(self._text[self._at : end])
            except ValueError:
                # What was found stands within the item.
                end = self._end()
                value = read(self._text[self._at : end])
            if not separator:
                opening = _OPENING.match(self._text, self._at)
                separator = b"}," + opening[0] if opening else _NOWHERE
            self._at = end
            yield value
            follows = self._next()
            if follows == b",":
                self._at += 1
                self._next()
            elif follows != b"]":
                raise ValueError("an item is not followed by another one, or by the end")
        self._see_end()

    def _more(self) -> bool:
        """Read on, and let go of what was looked at; False at the end."""
        parts = [self._text[self._at :]]
        size = 0
        for chunk in self._chunks:
            parts.append(chunk)
            size += len(chunk)
            # In proportion to what is there already, lest long items are looked at too often.
            if size >= max(_STEP, len(parts[0])):
                break
        else:
            self._is_over = True
        self._text, self._at = b"".join(parts), 0
        return size > 0

    def _next(self) -> bytes:
        """The next byte that is not blank, which stays the next one; ValueError at the end."""
        while True:
            rest = self._text[self._at : self._at + 64].lstrip(_BLANK)
            if rest:
                self._at += len(self._text[self._at : self._at + 64]) - len(rest)
                return rest[:1]
            self._at = min(len(self._text), self._at + 64)
            if self._at == len(self._text) and not self._more():
                raise ValueError("it ends too early")

    def _read_head(self) -> Mapping[str, Any]:
        """What stands before the items; everything, where there is no array of items."""
        while True:
            found = self._array_at()
            if found:
                head = decode(self._text[:found] + b"]}")
                self._at = found
                break
            if self._is_over:
                self._has_items = False
                head = decode(self._text)
                break
            if len(self._text) > LARGEST_HEAD:
                raise ValueError("its items do not begin")
            self._more()
        if not isinstance(head, Mapping) or not _names_items(head, self._has_items):
            raise ValueError("it is not a list")
        return head

    def _array_at(self) -> int:
        """Where the first item would stand; 0 while that is not known."""
        depth = 0
        for token in _TOKEN.finditer(self._text):
            text = token[0]
            if text == b'"':
                return 0
            if text in b"{[":
                depth += 1
            elif text in b"}]":
                depth -= 1
            elif depth == 1:
                array = _BEGINS_ARRAY.match(self._text, token.end())
                if array and json.loads(text) in ("items", "rows"):
                    return array.end()
        return 0

    def _quick_end(self, separator: bytes) -> int:
        """Where the item ends, if the next thing that begins alike is another one.

        Raises ValueError if there is none.
        """
        found = self._text.find(separator, self._at) if separator else -1
        if found < 0 and len(self._text) - self._at < _STEP and self._more():
            found = self._text.find(separator, self._at) if separator else -1
        if found < 0:
            raise ValueError("nothing is known to follow")
        return found + 1

    def _end(self) -> int:
        """Where the item ends, by its brackets. Raises ValueError where it is not an object."""
        if self._next() != b"{":
            raise ValueError("an item is not an object")
        while True:
            depth = 0
            for token in _TOKEN.finditer(self._text, self._at):
                text = token[0]
                if text == b'"':
                    break
                if text in b"{[":
                    depth += 1
                elif text in b"}]":
                    depth -= 1
                    if not depth:
                        return token.end()
            if len(self._text) - self._at > LARGEST_ITEM:
                raise ValueError("an item is too large")
            if not self._more():
                raise ValueError("it ends within an item")

    def _see_end(self) -> None:
        """See the end of the list, and of the answer."""
        rest = self._text[self._at + 1 :].strip(_BLANK)
        for chunk in self._chunks:
            rest = (rest + chunk).strip(_BLANK)
            if len(rest) > 1:
                break
        if rest != b"}":
            raise ValueError("the list is not closed after its items")


def _names_items(head: Mapping[str, Any], has_items: bool) -> bool:
    """Whether the head is that of a list or a table."""
    is_table = head.get("kind") == "Table"
    name, other = ("rows", "items") if is_table else ("items", "rows")
    is_list = is_table or str(head.get("kind")).endswith("List")
    if not is_list or not isinstance(head.get("metadata"), Mapping) or other in head:
        return False
    # An empty list of metadata has `items: null`.
    return bool(head.get(name, "missing") == ([] if has_items else None))


def is_whole(text: bytes) -> bool:
    """Whether the text is one JSON object or array by its brackets and strings alone.

    Takes half the time of decoding.
    """
    if rb"\\" in text:
        # In pairs from the left, so that what is left of them escapes what follows.
        text = text.replace(rb"\\", b"")
    text = text.replace(rb"\"", b"")
    # Two quotation marks beside each other change nothing of which brackets stand in a string.
    marks = text.translate(None, _ALL_BUT_MARKS).replace(b'""', b"")
    parts = marks.split(b'"')
    if not len(parts) % 2:
        return False  # within a string
    brackets = b"".join(parts[::2])
    if brackets[:1] + brackets[-1:] not in (b"{}", b"[]"):
        return False
    inner = brackets[1:-1]
    for _ in range(nesting.DEPTH):
        if not inner:
            return True
        fewer = inner.replace(b"{}", b"").replace(b"[]", b"")
        if len(fewer) == len(inner):
            return False
        inner = fewer
    return False


def decode(text: bytes) -> Any:
    """The JSON value, which is UTF-8. Raises ValueError, also where it is nested too deep."""
    # So many levels need so many brackets, and those are counted in no time.
    if text.count(b"{") + text.count(b"[") > nesting.DEPTH and not nesting.is_shallow(text):
        raise ValueError("it is nested too deep")
    try:
        return json.loads(text.decode("utf-8", "surrogatepass"))
    except RecursionError:  # brackets in strings made it look shallow
        raise ValueError("it is nested too deep") from None

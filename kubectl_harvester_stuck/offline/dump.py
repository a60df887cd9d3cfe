"""A file of Kubernetes objects: what `kubectl get -o yaml` or `-o json` printed, or several.

What such a file does not hold is a gap. A list of two namespaces and more was one of all; a list
of one namespace is taken for all of that namespace; an object that stands alone says nothing about
others. That a list was cut by a selector cannot be seen.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kubectl_harvester_stuck.errors import DumpError
from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.nesting import TooDeepObject
from kubectl_harvester_stuck.k8s.objects import ObjectRef, parse_time
from kubectl_harvester_stuck.offline import yaml_stream
from kubectl_harvester_stuck.offline.input import ReadResult, Wanted, group_of
from kubectl_harvester_stuck.offline.yaml_stream import YamlChunk

FILE_LIMIT = 512 << 20
"""The largest file that is read."""

_TYPE = (re.compile(rb"^(?:- |  )apiVersion: ([\w./-]+)\s*$", re.M),
         re.compile(rb"^(?:- |  )kind: (\w+)\s*$", re.M))  # fmt: skip
_PLACE = re.compile(rb"^    (namespace|name): ([\w.-]+)\s*$", re.M)


@dataclass(frozen=True)
class _Entry:
    """One object, parsed when it is needed."""

    namespace: str
    text: bytes
    body: Callable[[], Any]


@dataclass
class _Holding:
    """What the file has of one kind."""

    entries: list[_Entry] = field(default_factory=list)
    whole: set[str] = field(default_factory=set)
    """The namespaces of which it holds a list."""
    everywhere: bool = False


class Dump:
    """One file, all of it in memory as text. Raises DumpError."""

    says_when = False

    def __init__(self, name: str, data: bytes, written: datetime) -> None:
        self.name = name
        self.taken_at = written
        self._kinds: dict[tuple[str, str], _Holding] = {}
        data = data.removeprefix(b"\xef\xbb\xbf")
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise DumpError(f"{name} is not UTF-8: convert it first")
        if data.lstrip()[:1] in (b"{", b"["):
            if len(data) > yaml_stream.JSON_LIMIT:
                raise DumpError(f"{name} is larger than {yaml_stream.JSON_LIMIT >> 20} MiB of"
                                " JSON: ask kubectl for -o yaml")  # fmt: skip
            for document in yaml_stream.parse_json(data, name):
                self._take(document)
        else:
            self._read_yaml(data)
        if not self._kinds and not self._is_empty_list:
            raise DumpError(f"{name} holds no Kubernetes object")

    _is_empty_list = False

    def _read_yaml(self, data: bytes) -> None:
        waiting: list[YamlChunk] = []
        number = 0
        for piece in yaml_stream.pieces(io.BytesIO(data), self.name):
            if piece.document != number:
                self._finish(waiting, {})
                waiting, number = [], piece.document
            if piece.is_item:
                waiting.append(piece)
                continue
            rest = piece.parse(self.name)
            self._finish(waiting, rest)
            waiting = []
        self._finish(waiting, {})

    def _finish(self, items: list[YamlChunk], rest: Any) -> None:
        """One document: its items, and what stood around them."""
        if not items:
            if rest:
                self._take(rest)
            return
        header = rest if isinstance(rest, Mapping) else {}
        listed = [self._entry(piece, header) for piece in items]
        self._hold(listed, header)

    def _take(self, document: Any) -> None:
        """A document that has been parsed: an object, a list of the API, or a bare list."""
        if isinstance(document, list):
            for item in document:
                self._take(item)
            return
        if document is None:
            return
        if not isinstance(document, Mapping) or not document.get("kind"):
            raise DumpError(f"{self.name}: a document in it is not a Kubernetes object")
        items = document.get("items")
        if str(document["kind"]).endswith("List") and ("items" in document):
            if items is not None and not isinstance(items, list):
                raise DumpError(f"{self.name}: the items of a list are not a list")
            self._is_empty_list = self._is_empty_list or not items
            self._hold([self._parsed(item, document) for item in items or ()], document)
            return
        (key, entry) = self._parsed(document, {})
        self._kinds.setdefault(key, _Holding()).entries.append(entry)

    def _hold(
        self, listed: list[tuple[tuple[str, str], _Entry]], header: Mapping[str, Any]
    ) -> None:
        spaces: dict[tuple[str, str], set[str]] = {}
        for key, entry in listed:
            self._kinds.setdefault(key, _Holding()).entries.append(entry)
            spaces.setdefault(key, set()).add(entry.namespace)
        meta = header.get("metadata")
        meta = meta if isinstance(meta, Mapping) else {}
        release = header.get("release")
        if isinstance(release, Mapping):
            # A backup of this program: the objects of one release, at its time.
            self._set_time(release.get("takenAt"))
            return
        if meta.get("continue") or meta.get("remainingItemCount"):
            return
        for key, names in spaces.items():
            holding = self._kinds[key]
            holding.whole |= names
            holding.everywhere = holding.everywhere or len(names) > 1

    def _set_time(self, written: object) -> None:
        try:
            self.taken_at, self.says_when = parse_time(str(written)), True
        except ValueError:
            return

    def _entry(self, piece: YamlChunk, header: Mapping[str, Any]) -> tuple[tuple[str, str], _Entry]:
        """An item of a list, told by its text where that is unmistakable."""
        types = [pattern.findall(piece.text) for pattern in _TYPE]
        places = _PLACE.findall(piece.text)
        fields = {key.decode(): value.decode() for key, value in places}
        is_plain = len(fields) == len(places) and all(len(found) == 1 for found in types)
        if is_plain and "name" in fields:
            (version,), (kind,) = types
            name = self.name
            return (group_of(version.decode()), kind.decode()), _Entry(
                fields.get("namespace", ""), piece.text, lambda: piece.parse(name)
            )
        return self._parsed(piece.parse(self.name), header)

    def _parsed(self, item: Any, header: Mapping[str, Any]) -> tuple[tuple[str, str], _Entry]:
        if not isinstance(item, Mapping):
            raise DumpError(f"{self.name}: an item of a list is not an object")
        # The items of a PodList are Pods, and need not say so.
        kind = item.get("kind") or str(header.get("kind") or "").removesuffix("List")
        version = item.get("apiVersion") or header.get("apiVersion")
        meta = item.get("metadata")
        meta = meta if isinstance(meta, Mapping) else {}
        body: Any = {**item, "apiVersion": version, "kind": kind}
        if isinstance(item, TooDeepObject):
            body = item.typed(version, kind)
        return (group_of(version), str(kind)), _Entry(
            str(meta.get("namespace") or ""), b"", lambda: body
        )

    def namespaces(self) -> frozenset[str]:
        """The namespaces of its objects."""
        return frozenset(
            entry.namespace
            for holding in self._kinds.values()
            for entry in holding.entries
            if entry.namespace
        )

    def unknown_namespaces(self) -> str:
        """Nothing: a file speaks of its own namespaces, and claims no others."""
        return ""

    def read(self, kind: Kind, namespace: str | None, wanted: Wanted) -> ReadResult:
        """The objects of a kind."""
        holding = self._kinds.get((kind.group, kind.kind))
        if holding is None:
            return ReadResult(gap=f"{self.name} holds none of them")
        place = namespace if kind.namespaced else None
        part = ReadResult()
        is_whole = holding.everywhere or (
            "" in holding.whole if place is None and not kind.namespaced else place in holding.whole
        )
        if not is_whole:
            part.gap = f"{self.name} holds no list of them"
        for entry in holding.entries:
            if place in (None, entry.namespace) and (not entry.text or wanted(entry.text)):
                try:
                    part.items.append(entry.body())
                except DumpError as error:  # it hides no other
                    part.gap = part.gap or str(error)
        return part

    def log(self, _pod: ObjectRef, _container: str) -> bytes | None:
        """None: files of objects hold no logs."""
        return None

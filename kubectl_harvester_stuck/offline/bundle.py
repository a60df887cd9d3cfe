"""A Harvester support bundle, as support-bundle-kit writes it.

A file that is not there can mean "none", "forbidden" or "not collected". It means "none" only
where the namespace, or the cluster's own objects, were collected and the bundle's error log does
not name the kind; everything else is a gap. Zips of the nodes are left alone.

Bundles of before 2022 name folders after components (`kubernetes`, `kubevirt`) and hold a fixed
set of kinds, so that what they lack is always a gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, BinaryIO

from kubectl_harvester_stuck.errors import DumpError
from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.nesting import TooDeepObject
from kubectl_harvester_stuck.k8s.objects import ObjectRef, parse_time
from kubectl_harvester_stuck.offline import yaml_stream
from kubectl_harvester_stuck.offline.archive import Archive
from kubectl_harvester_stuck.offline.bundle_repair import mend
from kubectl_harvester_stuck.offline.input import ReadResult, Wanted, group_of
from kubectl_harvester_stuck.offline.yaml_stream import YamlChunk

OBJECTS_LIMIT = 4 << 30
"""Bytes of objects that one bundle may hold, all of its files together."""

LOG_BYTES = 2_000_000
"""How much of the end of a log is read."""

NOT_COLLECTED = "namespace not in the bundle"

ERRORS = "bundleGenerationError.log"
ERRORS_LIMIT = 4 << 20

_COMPONENTS = frozenset({"kubernetes", "harvester", "kubevirt", "cdi"})
_ROOT = re.compile(r"^(.*/)?(?=yamls/(?:cluster|namespaced)/)")
_FAILED = re.compile(
    r"Failed to get /apis?/(?:(?P<group>[^/\s]+\.[^/\s]+|apps|batch|autoscaling|policy)/)?[^/\s]+/"
    r"(?:namespaces/(?P<namespace>[^/\s]+)/)?(?P<plural>[^/\s:]+): (?P<why>.*)"
)
_NOT_WRITTEN = re.compile(
    r"failed to generate \S*?yamls/(?P<scope>cluster|namespaced/[^/\s]+)/(?P<path>\S+)\.yaml:"
    r" (?P<why>.*)"
)
_NOT_GOT = re.compile(
    r"Support [Bb]undle: (?:failed to|cannot) get (?P<plural>[a-z]+): (?P<why>.*)"
)
_WHOLE = re.compile(r"Unable to fetch (?P<scope>namespaced|cluster) resources: (?P<why>.*)")
_STAMP = re.compile(r"_(\d{4}-\d\d-\d\dT\d\d)-(\d\d)-(\d\d(?:\.\d+)?Z)")
_VERSION = re.compile(r"v\d\w*")
_ANY_NAME = "a name that only gives the kind"


@dataclass(frozen=True)
class _Member:
    path: str
    group: str | None
    """The API group that its folder names; None in old bundles, where the items tell."""


class Bundle:
    """One bundle. Raises DumpError where `archive` holds none."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._sizes = archive.sizes()
        roots = {found[0] for path in self._sizes if (found := _ROOT.match(path))}
        roots = roots or {
            path.removesuffix(ERRORS) for path in self._sizes if path.endswith(ERRORS)
        }
        if not roots:
            raise DumpError(f"{archive.name} holds no Harvester support bundle (no yamls folder)")
        objects = sum(size for path, size in self._sizes.items() if path.endswith(".yaml"))
        if objects > OBJECTS_LIMIT:
            raise DumpError(f"{archive.name} holds more than {OBJECTS_LIMIT >> 30} GiB of objects")
        self._root = min(roots, key=lambda root: (root.count("/"), root))
        self._members: dict[tuple[str, str], list[_Member]] = {}
        self._collected: set[str] = set()
        self._closed: list[list[str]] = []
        """The folders below yamls/ that are not looked into, each by the parts of its path."""
        self._is_old = False
        for path in self._sizes:
            self._register(path)

    def _register(self, path: str) -> None:
        if path == f"{self._root}yamls/":
            raise DumpError(self._why_closed(path))
        if path.startswith(f"{self._root}yamls/") and path.endswith("/"):
            self._closed.append(path[len(self._root) + len("yamls/") : -1].split("/"))
            return
        if not path.startswith(f"{self._root}yamls/") or not path.endswith(".yaml"):
            return
        scope, *rest = path[len(self._root) + len("yamls/") :].split("/")
        namespace = rest.pop(0) if scope == "namespaced" and rest else ""
        if not rest or scope not in ("cluster", "namespaced"):
            return
        *folders, file = rest
        plural = file.removesuffix(".yaml")
        group: str | None = folders[0] if len(folders) == 2 else ""
        if len(folders) < 2 and (not folders or folders[0] in _COMPONENTS):
            group, self._is_old = None, True
        self._members.setdefault((namespace, plural), []).append(_Member(path, group))
        # The Secrets of one namespace are collected by themselves.
        if namespace and plural != "secrets":
            self._collected.add(namespace)

    def _why_closed(self, path: str) -> str:
        return (
            f"{self.name}/{path.rstrip('/')} is a link, or may not be read by this user: unpack the"
            " bundle again"
        )

    def _hidden(self, group: str, namespace: str) -> str:
        """Why a folder that is not looked into may hold objects of the group; "" where none may."""
        scope = ["namespaced", namespace] if namespace else ["cluster"]
        for parts in self._closed:
            shared = min(len(parts), len(scope))
            if parts[:shared] != scope[:shared]:
                continue
            folder = parts[len(scope)] if len(parts) > len(scope) else None
            # The core group has no folder but that of its version; those of components mix groups.
            is_mixed = folder is None or folder in _COMPONENTS
            if is_mixed or folder == group or (not group and _VERSION.fullmatch(folder or "")):
                return self._why_closed(f"{self._root}yamls/{'/'.join(parts)}")
        return ""

    @property
    def name(self) -> str:
        """The path that the operator gave."""
        return self._archive.name

    @property
    def says_when(self) -> bool:
        """Whether its metadata tell when it was collected."""
        return self._created is not None

    @property
    def taken_at(self) -> datetime:
        """When it was collected; where it does not say, when its file was written."""
        return self._created or self._archive.written

    @cached_property
    def _created(self) -> datetime | None:
        written = ""
        path = f"{self._root}metadata.yaml"
        if path in self._sizes:
            with self._archive.open(path) as stream:
                meta = yaml_stream.parse_yaml(stream.read(yaml_stream.MIB), f"{self.name}:{path}")
            if isinstance(meta, Mapping):
                written = str(meta.get("bundlecreatedat") or "")
        if not written and (stamp := _STAMP.search(self._root or self.name)):
            written = f"{stamp[1]}:{stamp[2]}:{stamp[3]}"
        try:
            return parse_time(written) if written else None
        except ValueError:
            return None

    @cached_property
    def _failures(self) -> Mapping[tuple[str | None, str, str], str]:
        """What the bundle's own error log says: by group, namespace and plural."""
        found: dict[tuple[str | None, str, str], str] = {}
        path = f"{self._root}{ERRORS}"
        if path not in self._sizes:
            return found
        with self._archive.open(path) as stream:
            text = stream.read(ERRORS_LIMIT).decode("utf-8", "replace")
        for line in text.splitlines():
            if failed := _FAILED.search(line):
                key = (failed["group"] or "", failed["namespace"] or "", failed["plural"])
                found[key] = f"the bundle's error log says: {failed['why'][:200]}"
            elif lost := _NOT_WRITTEN.search(line):
                *folders, plural = lost["path"].split("/")
                group = folders[0] if len(folders) == 2 else "" if folders else None
                namespace = lost["scope"].removeprefix("namespaced/").removeprefix("cluster")
                found[group, namespace, plural] = (
                    f"the bundle's error log says: {lost['why'][:200]}"
                )
            elif whole := _WHOLE.search(line):
                found[None, whole["scope"], ""] = (
                    f"the bundle's error log says: {whole['why'][:200]}"
                )
            elif not_got := _NOT_GOT.search(line):
                found[None, _ANY_NAME, not_got["plural"]] = (
                    f"the bundle's error log says: {not_got['why'][:200]}"
                )
        if len(text) >= ERRORS_LIMIT:
            for scope in ("namespaced", "cluster"):
                found.setdefault((None, scope, ""), "the bundle's error log is too long to read")
        return found

    @cached_property
    def _named(self) -> frozenset[str] | None:
        """The Namespaces of the cluster, None where the bundle does not hold them all."""
        if self._hidden("", ""):
            return None
        names = set()
        for member in self._members.get(("", "namespaces"), ()):
            part = ReadResult()
            for item in self._items(member, part, lambda _: True):
                meta = item.get("metadata") if isinstance(item, Mapping) else None
                name = meta.get("name") if isinstance(meta, Mapping) else None
                names.add(str(name))
            if part.gap:
                return None
        return frozenset(names) or None

    def namespaces(self) -> frozenset[str]:
        """Those of the cluster, as far as they are known."""
        closed = {parts[1] for parts in self._closed if parts[0] == "namespaced" and parts[1:]}
        return frozenset(self._collected | closed) | (self._named or frozenset())

    def unknown_namespaces(self) -> str:
        """Why others may exist."""
        return "" if self._named else f"{self.name} does not say which namespaces there are"

    def read(self, kind: Kind, namespace: str | None, wanted: Wanted) -> ReadResult:
        """The objects of a kind; a damaged member is a gap."""
        try:
            if not kind.namespaced:
                return self._read(kind, "", wanted)
            if namespace is not None:
                return self._read(kind, namespace, wanted)
            whole = ReadResult()
            whole.gap = self.unknown_namespaces()
            for name in sorted(self.namespaces()):
                part = self._read(kind, name, wanted)
                whole.items += part.items
                whole.gap = whole.gap or part.gap
            return whole
        except DumpError as error:
            return ReadResult(gap=str(error))

    def _read(self, kind: Kind, namespace: str, wanted: Wanted) -> ReadResult:
        members = [
            member
            for member in self._members.get((namespace, kind.plural), ())
            if member.group in (None, kind.group)
        ]
        hidden = self._hidden(kind.group, namespace)
        gap = hidden or self._why_incomplete(kind, namespace, has_file=bool(members))
        part = ReadResult(gap=gap)
        seen: set[tuple[str, str]] = set()
        for member in members:
            for item in self._items(member, part, wanted):
                if not isinstance(item, Mapping):
                    part.items.append(item)  # it is named where it is read
                    continue
                body = {"apiVersion": kind.api_version, "kind": kind.kind, **item}
                if (group_of(body["apiVersion"]), body["kind"]) != (kind.group, kind.kind):
                    continue
                meta = body.get("metadata")
                meta = meta if isinstance(meta, Mapping) else {}
                uid, called = meta.get("uid"), meta.get("name")
                # A kind can stand in two versions of its group. No uid, or that of another object,
                # hides nothing.
                if isinstance(uid, str) and isinstance(called, str):
                    if (uid, called) in seen:
                        continue
                    seen.add((uid, called))
                if isinstance(item, TooDeepObject):
                    part.items.append(item.typed(body["apiVersion"], body["kind"]))
                else:
                    part.items.append(mend(body))
        return part

    def _why_incomplete(self, kind: Kind, namespace: str, *, has_file: bool) -> str:
        """Why the files do not hold every object of the kind; "" when they do."""
        failures = self._failures
        for key in ((kind.group, namespace, kind.plural), (None, namespace, kind.plural)):
            if key in failures:
                return failures[key]
        if has_file:
            return ""
        scope = "namespaced" if kind.namespaced else "cluster"
        for name in (_ANY_NAME, scope):
            why = failures.get((None, name, kind.plural if name == _ANY_NAME else ""))
            if why:
                return why
        if self._is_old:
            return "bundles of this age do not hold it"
        if f"{self._root}{ERRORS}" not in self._sizes:
            return f"it may have failed: the bundle has no {ERRORS}"
        if kind.namespaced and namespace not in self._collected:
            return NOT_COLLECTED
        # Every cluster has nodes: without them the cluster's own objects were not collected.
        if not kind.namespaced and ("", "nodes") not in self._members:
            return "the bundle does not hold the objects of the cluster"
        return ""

    def _items(self, member: _Member, part: ReadResult, wanted: Wanted) -> Iterator[Any]:
        """The items of one file; what is wrong with it becomes the part's gap."""
        name = f"{self.name}:{member.path}"
        try:
            with self._archive.open(member.path) as stream:
                for piece in yaml_stream.pieces(stream, name):
                    if piece.is_item:
                        if wanted(piece.text):
                            yield from self._item(piece, name, part)
                        continue
                    rest = piece.parse(name)
                    items = rest.get("items") if isinstance(rest, Mapping) else None
                    if not isinstance(items, list | None) or (rest and not isinstance(rest, dict)):
                        raise DumpError(f"{name} is not a list of objects")
                    yield from items or ()
        except DumpError as error:
            part.gap = part.gap or str(error)

    def _item(self, piece: YamlChunk, name: str, part: ReadResult) -> Iterator[Any]:
        """An item of a list; one that cannot be read hides no other."""
        try:
            yield piece.parse(name)
        except DumpError as error:
            part.gap = part.gap or str(error)

    def log(self, pod: ObjectRef, container: str) -> bytes | None:
        """The end of a container's log; of a pod's only one, whatever its name."""
        folder = f"{self._root}logs/{pod.namespace}/{pod.name}/"
        for path in self._sizes:
            if path.endswith("/") and folder.startswith(path):
                raise DumpError(self._why_closed(path))
        logs = [path for path in self._sizes if path.startswith(folder) and path.endswith(".log")]
        named = f"{folder}{container}.log"
        if named not in logs:
            if len(logs) != 1:
                return None
            named = logs[0]
        with self._archive.open(named) as stream:
            return _tail(stream)


def _tail(stream: BinaryIO) -> bytes:
    end = bytearray()
    while chunk := stream.read(yaml_stream.MIB):
        end += chunk
        del end[:-LOG_BYTES]
    return bytes(end)

"""Read what `-f` names as if it were a cluster: support bundles, and files of objects.

`read(files)` gives a `Source`, which can only be read from. Several files together are one
cluster; where two of them hold the same object, the later one wins.

Bytes become objects in `yaml_stream.py`, files of a zip or a folder come from `archive.py`,
`bundle.py` and `dump.py` know which kinds they hold, and `bundle_repair.py` undoes the damage of a
bundle.
"""

from __future__ import annotations

import re
import stat
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from kubectl_harvester_stuck.errors import DumpError, UnreadableError
from kubectl_harvester_stuck.k8s import selectors as label_selectors
from kubectl_harvester_stuck.k8s.kinds import Kind
from kubectl_harvester_stuck.k8s.objects import ObjectRef
from kubectl_harvester_stuck.k8s.source import ListQuery, PartialListError
from kubectl_harvester_stuck.offline.archive import Folder, Zip
from kubectl_harvester_stuck.offline.bundle import Bundle
from kubectl_harvester_stuck.offline.dump import FILE_LIMIT, Dump
from kubectl_harvester_stuck.offline.input import Input, ReadResult, Wanted
from kubectl_harvester_stuck.offline.unopened import Unopened

STANDARD_INPUT = "-"
OBJECT_FILES = (".yaml", ".yml", ".json")

_NAME = re.compile(rb"^ {4,6}name: [\"']?([^\s\"']+)", re.M)


def read(files: Sequence[str], stdin: BinaryIO, now: datetime) -> Files:
    """The objects of all `files`. `now` is the time of what comes from `stdin`.

    Raises DumpError with what to do about a file that cannot be used.
    """
    return Files([part for name in files for part in _open(name, stdin, now)])


def _open(name: str, stdin: BinaryIO, now: datetime) -> list[Input]:
    if name == STANDARD_INPUT:
        return [Dump("standard input", _bounded(stdin, "standard input"), now)]
    path = Path(name)
    try:
        if path.is_dir():
            return _folder(path)
        with path.open("rb") as file:
            start = file.read(4)
            if start[:2] == b"\x1f\x8b":
                raise DumpError(f"{name} is compressed with gzip: unpack it first")
            if start[:2] == b"PK":
                return [Bundle(Zip(path))]
            file.seek(0)
            written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)
            return [Dump(name, _bounded(file, name), written)]
    except OSError as error:
        raise DumpError(f"cannot read {name}: {error.strerror or error}") from error


def _folder(path: Path) -> list[Input]:
    """An unpacked bundle, or the files of objects in a folder."""
    inner = (item for item in path.iterdir() if item.is_dir() and not item.is_symlink())
    for folder in (path, *sorted(inner)):
        if (folder / "yamls").is_dir() or (folder / "bundleGenerationError.log").is_file():
            return [Bundle(Folder(folder))]
    found = sorted(item for item in path.iterdir() if item.suffix in OBJECT_FILES)
    if not found:
        raise DumpError(f"{path} holds neither a support bundle nor a .yaml or .json file")
    dumps: list[Input] = []
    reasons: list[str] = []
    for item in found:
        # A link could lead anywhere; to open a pipe would mean to wait for its other end.
        if not stat.S_ISREG(item.lstat().st_mode):
            reasons.append(f"{item} is a link or no file, and is not opened: name what is meant")
            continue
        with item.open("rb") as file:
            written = datetime.fromtimestamp(item.stat().st_mtime, timezone.utc)
            dumps.append(Dump(str(item), _bounded(file, str(item)), written))
    if not dumps:
        raise DumpError(reasons[0])
    names = [part.name for part in dumps]
    return [*dumps, *(Unopened(str(path), why, names) for why in reasons)]


def _bounded(file: BinaryIO, name: str) -> bytes:
    data = file.read(FILE_LIMIT + 1)
    if len(data) > FILE_LIMIT:
        raise DumpError(f"{name} is larger than {FILE_LIMIT >> 20} MiB")
    return data


class Whereabouts(NamedTuple):
    """Where an object is, and why it may be elsewhere as well; "" where the files hold all."""

    namespaces: tuple[str, ...]
    gap: str


class Files:
    """A `Source` made of files; safe to use from several threads."""

    def __init__(self, inputs: Sequence[Input]) -> None:
        self._inputs = inputs
        self._known: dict[ObjectRef, Mapping[str, Any] | str | None] = {}
        self._reading = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """What the operator called them."""
        # Where a folder is named, the files that were opened in it are read with it.
        unopened = [part for part in self._inputs if isinstance(part, Unopened)]
        within = {name for part in unopened for name in part.beside}
        names = (part.name for part in self._inputs)
        return tuple(dict.fromkeys(name for name in names if name not in within))

    @property
    def now(self) -> datetime:
        """The time of the newest of the files."""
        return max(part.taken_at for part in self._inputs)

    @property
    def says_when(self) -> bool:
        """Whether that time stands in the files themselves."""
        return max(self._inputs, key=lambda part: part.taken_at).says_when

    def namespaces(self) -> tuple[str, ...]:
        """Every namespace that the files know of."""
        return tuple(sorted({name for part in self._inputs for name in part.namespaces()}))

    @property
    def has_bundle(self) -> bool:
        """Whether a support bundle is among them."""
        return any(map(_is_bundle, self._inputs))

    @property
    def title(self) -> str:
        """Their names in short."""
        first, *more = self.names
        return f"{first} and {len(more)} more" if more else first

    def unknown_namespaces(self) -> tuple[str, ...]:
        """Why there may be namespaces that the files do not know of."""
        return tuple(filter(None, (part.unknown_namespaces() for part in self._inputs)))

    def where_is(self, kind: Kind, name: str) -> Whereabouts:
        """The namespaces that hold an object of that kind and name."""
        part = self._read(kind, None, _naming({name}))
        found = {str(_meta(item).get("namespace") or "") for item in _called(part, {name})}
        return Whereabouts(tuple(sorted(found)), part.gap)

    def list_objects(self, selection: ListQuery, keep: Callable[[Any], bool]) -> list[Any]:
        """The items that fit. Raises PartialListError with those that there are."""
        wanted = _hinted(selection.hint) if selection.hint else _everything
        part = self._read(selection.kind, selection.namespace, wanted)
        found = [item for item in part.items if keep(item) and _fits(selection, item)]
        if part.gap:
            where = f" in {selection.namespace}" if selection.namespace else ""
            raise PartialListError(f"{selection.kind.resource}{where}", part.gap, found)
        return found

    def get(
        self,
        ref: ObjectRef,
        *,
        metadata_only: bool = False,  # noqa: ARG002 - files hold whole objects anyway
    ) -> Mapping[str, Any] | None:
        """The object, or None where a whole list lacks it. Raises UnreadableError."""
        if ref not in self._known:
            self.prefetch([ref])
        found = self._known[ref]
        if isinstance(found, str):
            raise UnreadableError(str(ref), found)
        return found

    def prefetch(self, refs: Iterable[ObjectRef]) -> None:
        """Find these objects in one pass over the files of each kind and namespace."""
        scopes: dict[tuple[Kind, str], set[str]] = {}
        for ref in refs:
            if ref not in self._known:
                scopes.setdefault((ref.kind, ref.namespace), set()).add(ref.name)
        for (kind, namespace), names in scopes.items():
            part = self._read(kind, namespace, _naming(names))
            for name in names:
                self._known.setdefault(ObjectRef(namespace, name, kind), part.gap or None)
            for item in _called(part, names):
                self._known[ObjectRef(namespace, str(_meta(item)["name"]), kind)] = item

    def log(self, pod: ObjectRef) -> str:
        """The end of a pod's log. Raises UnreadableError, DumpError."""
        body = self.get(pod) or {}
        spec = body.get("spec")
        containers = spec.get("containers") if isinstance(spec, Mapping) else None
        first = containers[0] if isinstance(containers, list) and containers else None
        container = str(first.get("name")) if isinstance(first, Mapping) else ""
        closed: DumpError | None = None
        for part in self._inputs:
            try:
                found = part.log(pod, container)
            except DumpError as error:
                closed = closed or error
                continue
            if found is not None:
                return found.decode("utf-8", "replace")
        if closed is not None:
            raise closed
        raise UnreadableError(f"the log of {pod}", "the files do not hold it")

    def _read(self, kind: Kind, namespace: str | None, wanted: Wanted) -> ReadResult:
        # One reader at a time: parsing is bound by the processor, and a zip has one file handle.
        with self._reading:
            parts = [part.read(kind, namespace, wanted) for part in self._inputs]
        if len(parts) == 1:
            return parts[0]
        merged: dict[tuple[str, ...], Any] = {}
        for number, item in enumerate(item for part in parts for item in part.items):
            meta = _meta(item)
            # With its name: the uid of another object hides nothing.
            which = (str(meta.get(key)) for key in ("uid", "namespace", "name"))
            merged[tuple(which) if meta.get("uid") else (str(number),)] = item
        return ReadResult(list(merged.values()), self._gap(kind, [part.gap for part in parts]))

    def _gap(self, kind: Kind, gaps: Sequence[str]) -> str:
        """What is missing from all of them together: nothing, if one of them holds it all.

        What was not opened may hold a newer list than that one.
        """
        parts = zip(self._inputs, gaps, strict=True)
        unopened = next((gap for part, gap in parts if isinstance(part, Unopened)), "")
        if unopened or "" in gaps:
            return unopened
        of_bundles = [gap for part, gap in zip(self._inputs, gaps, strict=True) if _is_bundle(part)]
        return next(iter(of_bundles), f"no file holds a list of {kind.resource}")


def _is_bundle(part: Input) -> bool:
    return isinstance(part, Bundle)


def _everything(_: bytes) -> bool:
    return True


def _hinted(hint: Wanted) -> Wanted:
    """Whether an item may be wanted; one of another shape is read to be sure."""
    return lambda text: hint(text) or b"metadata:" not in text


def _naming(names: set[str]) -> Wanted:
    wanted = {name.encode() for name in names}

    def is_named(text: bytes) -> bool:
        found = _NAME.findall(text)
        return not found or not wanted.isdisjoint(found)

    return is_named


def _called(part: ReadResult, names: set[str]) -> list[Any]:
    return [item for item in part.items if str(_meta(item).get("name")) in names]


def _meta(item: Any) -> Mapping[str, Any]:
    meta = item.get("metadata") if isinstance(item, Mapping) else None
    return meta if isinstance(meta, Mapping) else {}


def _fits(selection: ListQuery, item: Any) -> bool:
    """Whether the item is selected; one that cannot be read is kept, so that it is named."""
    meta = _meta(item)
    if not meta:
        return True
    if selection.fields:
        field, _, value = selection.fields.partition("=")
        if field != "metadata.name":
            raise ValueError(f"files are not selected by {field}")
        if meta.get("name") != value:
            return False
    if selection.labels:
        carried = meta.get("labels")
        carried = carried if isinstance(carried, Mapping) else {}
        return label_selectors.parse(selection.labels)(carried)
    return True

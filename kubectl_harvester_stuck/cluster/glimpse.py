"""What can be seen of the text of a listed item without decoding it.

Only of text in the very form in which the API server writes it (the fields of ObjectMeta in their
order, no space between them); everything else has to be decoded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from kubectl_harvester_stuck.cluster.list_stream import is_whole
from kubectl_harvester_stuck.k8s.source import Glimpse

_TEXT = rb'"[^"\\]*"'
_CELL = rb'(?:"[^"\\]*"|[-+.\w]*)'
_METADATA = (
    rb'"metadata":\{"name":"([^"\\]*)",(?:"generateName":' + _TEXT + rb",)?"
    rb'(?:"namespace":"([^"\\]*)",)?"uid":' + _TEXT + rb',"resourceVersion":' + _TEXT + rb","
    rb'(?:"generation":\d+,)?"creationTimestamp":"([^"\\]*)"'
)
_BEGIN = re.compile(
    rb'\{(?:"cells":(\[' + _CELL + rb"(?:," + _CELL + rb')*\]),"object":\{)?'
    rb'"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1",' + _METADATA
)
_BEGIN_OF_POD = re.compile(rb"\{()" + _METADATA)
"""Of its own kinds the API server lists whole objects without kind and apiVersion."""


def glimpse_of_pod(text: bytes) -> Glimpse | None:
    """What is seen of a whole pod, without cells; None where it has to be decoded."""
    return _glimpse(text, _BEGIN_OF_POD, ())


def glimpse(text: bytes, cells: Sequence[int]) -> Glimpse | None:
    """What is seen of an item, with those cells of its row; None where it has to be decoded.

    That is wherever it may be deleted, may not be shaped as the API promises, or is not one whole
    object.
    """
    return _glimpse(text, _BEGIN, cells)


def _glimpse(text: bytes, begin: re.Pattern[bytes], cells: Sequence[int]) -> Glimpse | None:
    found = begin.match(text)
    if (
        found is None
        or b'"deletionTimestamp"' in text
        # A name with an escaped letter is only seen once it is decoded.
        or rb"\u00" in text
        # Of two the last one counts.
        or text.count(b'"metadata"') != 1
        or not is_whole(text)
    ):
        return None
    row, name, namespace, created = found.groups(b"")
    values: tuple[object, ...] = ()
    try:
        if cells:
            row_values = json.loads(row)
            values = tuple([row_values[index] for index in cells])
        return Glimpse(namespace.decode(), name.decode(), created.decode(), values, text)
    except (ValueError, IndexError):
        return None

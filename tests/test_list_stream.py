"""The items of a list that are cut out of its bytes: what the plain decoder says, or nothing.

`EXAMPLES=100000` in the environment looks longer.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_harvester_stuck.cluster import client, list_stream, reader
from kubectl_harvester_stuck.cluster.list_stream import ListStream, decode, is_whole
from kubectl_harvester_stuck.k8s.kinds import POD, VM, VMI
from kubectl_harvester_stuck.k8s.source import ListQuery
from kubectl_harvester_stuck.listing.survey import is_deleting

EXAMPLES = int(os.environ.get("EXAMPLES", "500"))

HEAD = '{"kind":"PartialObjectMetadataList","apiVersion":"v1","metadata":{"resourceVersion":"7"}'
KIND = '"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1"'
IDENTITY = '"name":"a","uid":"u","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z"'
ITEM = f'{{{KIND},"metadata":{{{IDENTITY},"labels":{{"b":"}},{{"}}}}}}'
DELETING = ITEM.replace('"labels"', '"deletionTimestamp":"2026-01-01T00:00:00Z","labels"')
ROW = f'{{"cells":["a"],"object":{ITEM}}}'
TABLE = '{"kind":"Table","metadata":{},"columnDefinitions":[{"name":"Name"}],"rows":[%s]}'

WHAT_IS_BEING_DELETED = ListQuery(VM, metadata_only=True, matters=lambda _: False)
"""Nothing else is decoded."""


def streamed(
    body: bytes, size: int = 16384, query: ListQuery = WHAT_IS_BEING_DELETED
) -> tuple[Any, list[Any]]:
    """Head and items of a body that comes in parts of that size; None for what is not decoded."""
    stream = ListStream(body[at : at + size] for at in range(0, len(body), size))
    return stream.head, list(stream.items(client._reader(stream.head, query)))


EVERYTHING = ListQuery(VM, metadata_only=True)


def listed(*items: str, after: str = "", head: str = HEAD) -> bytes:
    return f'{head},"items":[{",".join(items)}]{after}}}\n'.encode()


@pytest.mark.parametrize("size", [1, 2, 7, 100, 16384])
def test_the_items_are_those_that_were_written(size: int) -> None:
    body = listed(ITEM, DELETING, ITEM, ITEM)
    head, items = streamed(body, size)
    assert head["metadata"] == {"resourceVersion": "7"}
    assert items == [None, json.loads(DELETING), None, None]
    assert streamed(body, size, EVERYTHING)[1] == json.loads(body)["items"]


@pytest.mark.parametrize("items", [b"null", b"[]", b" [ ] "])
def test_a_list_can_be_empty(items: bytes) -> None:
    assert streamed(HEAD.encode() + b',"items":' + items + b"}")[1] == []


def test_an_item_without_metadata_is_not_taken_for_a_part_of_another() -> None:
    odd = '{"name":"a","b":{"c":0}}'
    items = streamed(listed(ITEM, odd, ITEM))[1]
    assert items == [None, json.loads(odd), None]


def test_a_table_has_rows() -> None:
    columns = (("Name", ("spec", "shown")),)
    body = (TABLE % f"{ROW},{ROW}").encode()
    deleting = ListQuery(VMI, columns=columns, matters=lambda seen: seen.cells != ("a",))
    assert streamed(body, query=deleting)[1] == [None, None]
    shown = {**json.loads(ITEM), "spec": {"shown": "a"}}
    assert streamed(body, query=ListQuery(VMI, columns=columns))[1] == [shown, shown]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"kind":"Status","metadata":{},"code":504}',
        b'{"kind":"Status","metadata":{},"items":[]}',
        b'{"kind":"VirtualMachineList","items":[]}',
        b'{"kind":"VirtualMachineList","metadata":{}}',
        b'{"kind":"VirtualMachineList","metadata":{},"items":{}}',
        b'{"kind":"VirtualMachineList","metadata":{},"rows":[]}',
        b'{"kind":"Table","metadata":{},"items":[]}',
        b'{"kind":"Table","metadata":{},"items":[],"rows":[]}',
        b'{"items":[],"kind":"VirtualMachineList","metadata":{}}',
        listed(ITEM).decode().encode("utf-16"),
        listed(ITEM, head=HEAD.replace('"7"', '"7","continue":"more"')),
        listed(ITEM, after=',"items":[]'),
        listed(ITEM, after=',"metadata":{"continue":"more"}'),
        listed(ITEM) + b"{}",
        listed(ITEM) + b"x",
        listed(ITEM, ""),
        listed("", ITEM),
        listed(ITEM, "null"),
        listed(ITEM, "[]"),
        listed(ITEM, '"deletionTimestamp"'),
        listed(ITEM + ITEM),
        listed(ITEM + "x"),
        listed(ITEM.replace("{", "[", 1)),
        listed(DELETING.replace(":", "", 1)),
        listed(ITEM + ',{"a":0' + ITEM),
        listed('{"a":' * 201 + "0" + "}" * 201),
    ],
)
def test_what_is_no_list_as_the_server_writes_it_is_left_to_the_plain_decoder(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        streamed(body)


@pytest.mark.parametrize("items", [(), (ITEM,), (ITEM, DELETING, ITEM)])
@pytest.mark.parametrize("size", [1, 16384])
def test_a_list_that_is_cut_short_is_never_a_shorter_one(items: tuple[str, ...], size: int) -> None:
    body = listed(*items).rstrip()
    for end in range(len(body)):
        with pytest.raises(ValueError, match=r"."):
            streamed(body[:end], size)


@pytest.mark.parametrize("name", ["LARGEST_HEAD", "LARGEST_ITEM"])
def test_what_does_not_end_is_given_up(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(list_stream, name, 1 << 17)
    begun = {"LARGEST_HEAD": HEAD, "LARGEST_ITEM": f'{HEAD},"items":[{ITEM},{ITEM[:-3]}'}[name]
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield begun.encode()
        while True:
            taken += 1
            yield b',"a":"b"' * 1000

    with pytest.raises(ValueError, match=r"do not begin|too large"):
        list(ListStream(endless()).items(decode))
    assert taken < 200


def test_memory_does_not_grow_with_the_list() -> None:
    largest = 0

    def parts() -> Iterator[bytes]:
        yield f'{HEAD},"items":[{ITEM}'.encode()
        for _ in range(100):
            yield f",{ITEM}".encode() * 100
        yield b"]}"

    stream = ListStream(parts())
    for _ in stream.items(decode):
        largest = max(largest, len(stream._text))
    assert largest < 1 << 18


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b"{}", True),
        (b'{"a":["}",{"b":"\\"]"}]}', True),
        (b'{"a\\\\":"{","b":"\\\\\\"{"}', True),
        (b'{"a":"b\\\\"}', True),
        (b'{"a":"b\\"}', False),
        (b"{}{}", False),
        (b"{},{}", False),
        (b'{"a":[}]', False),
        (b'{"a":{}', False),
        (b'{"a":"}', False),
        (b'{"a":"}"', False),
        (b'{"[":"","":"]"}', True),
        (b"1", False),
        (b"", False),
    ],
)
def test_brackets_and_strings_say_whether_a_value_is_whole(text: bytes, answer: bool) -> None:
    assert is_whole(text) is answer


CALM = ("a", "name", "labels", "}],[{", '\\"', "\\\\", "é", "x\\\\", '\\"deletionTimestamp\\":')
KEYS = (
    *("deletionTimestamp", "deletion\\u0054imestamp", "\\u0064eletionTimestamp", "items", "rows"),
    *("metadata", "kind", "\\ud83d\\ude00", "x\\\\u0054", *CALM),
)
TEXTS = (
    *('},{\\"kind\\":\\"PartialObjectMetadata\\"', "]}", "[[[", "}}}", "\\n", "\\/", "{", ""),
    '\\\\\\"}',
)


class Writer:
    """Writes bodies of every kind, all of them JSON."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.blank = self.random.random() < 0.3
        self.keys = KEYS if self.random.random() < 0.6 else CALM

    def space(self) -> str:
        return self.random.choice(("", "", " ", "\n", "\t\r\n ")) if self.blank else ""

    def string(self) -> str:
        return f'"{self.random.choice((*TEXTS, *self.keys))}"'

    def value(self, depth: int) -> str:
        kind = self.random.randrange(12 if depth else 8)
        if kind < 4:
            return self.string()
        if kind < 8:
            scalars = ("null", "true", "0", "-1.5e300", "1e999", "9" * 400, "NaN", '"2026"')
            return self.random.choice(scalars)
        if kind < 10:
            return self.array([self.value(depth - 1) for _ in range(self.random.randrange(4))])
        if kind == 10:
            return self.array([self.item(depth - 1) for _ in range(self.random.randrange(4))])
        return self.object(depth - 1)

    def array(self, values: list[str]) -> str:
        return f"[{self.space()}{f'{self.space()},{self.space()}'.join(values)}{self.space()}]"

    def fields(self, pairs: list[tuple[str, str]]) -> str:
        texts = [f'"{key}"{self.space()}:{self.space()}{value}' for key, value in pairs]
        return "{" + self.array(texts)[1:-1] + "}"

    def object(self, depth: int) -> str:
        count = self.random.randrange(5)
        return self.fields(
            [(self.random.choice(self.keys), self.value(depth)) for _ in range(count)]
        )

    def item(self, depth: int = 3) -> str:
        if self.random.random() < 0.02:
            return self.value(1)
        meta = [("name", self.string())]
        meta += [(self.random.choice(self.keys), self.value(depth)) for _ in range(2) if depth > 0]
        if self.random.random() < 0.2:
            meta.append((self.random.choice(KEYS[:3]), '"2026-01-01T00:00:00Z"'))
        self.random.shuffle(meta)
        pairs = [("kind", '"PartialObjectMetadata"'), ("metadata", self.fields(meta))]
        if self.random.random() < 0.5:
            # As the API server writes it, so that not everything has to be decoded.
            written = f"{{{IDENTITY},{self.fields(meta)[1:]}"
            pairs[1:] = [("apiVersion", '"meta.k8s.io/v1"'), ("metadata", written)]
        if self.random.random() < 0.2:
            pairs.append((self.random.choice(self.keys), self.value(max(0, depth))))
        if self.random.random() < 0.1:
            self.random.shuffle(pairs)
        return self.fields(pairs)

    def body(self) -> bytes:
        pairs = [("kind", '"PartialObjectMetadataList"'), ("metadata", '{"resourceVersion":"7"}')]
        items = [self.item() for _ in range(self.random.randrange(9))]
        name = "items" if self.random.random() < 0.95 else "it\\u0065ms"
        pairs.append((name, self.array(items)))
        if self.random.random() < 0.05:
            self.random.shuffle(pairs)
        if self.random.random() < 0.05:
            at = self.random.randrange(4)
            pairs.insert(at, (self.random.choice(self.keys), self.value(2)))
        text = f"{self.space()}{self.fields(pairs)}{self.space()}"
        return text.encode("utf-8", "surrogatepass")

    def damaged(self, body: bytes) -> bytes:
        """The body with a byte taken out, put in or changed, or without its end."""
        at = self.random.randrange(len(body))
        kind = self.random.randrange(4)
        if kind == 0:
            return body[:at]
        other = self.random.choice((b"", b'"', b"{", b"}", b"[", b"]", b",", b"\\", b"x", b"\xff"))
        return body[:at] + other + body[at + (kind > 1) :]


class PodWriter(Writer):
    """Writes lists of whole pods, some of them of guests by their metadata, or by another text."""

    MARKS = ("kubevirt.io", "kubevirt.io/domain", "kubevirt\\u002eio", "\\u006bubevirt.io",
             "harvesterhci.io/x", "app")  # fmt: skip

    def item(self, depth: int = 3) -> str:
        if self.random.random() < 0.02:
            return self.value(1)
        key = self.random.choice(("labels", "annotations", "ownerReferences", *self.keys))
        mark = f'"{self.random.choice(self.MARKS)}"'
        meta = [(key, self.random.choice((f"{{{mark}:{mark}}}", f"[{mark}]", self.value(depth))))]
        written = f"{{{IDENTITY},{self.fields(meta)[1:]}"
        if self.random.random() < 0.2:
            written = self.fields([("name", self.string()), *meta])
        pairs = [("metadata", written), ("spec", self.value(depth))]
        if self.random.random() < 0.2:
            pairs.append((self.random.choice(self.keys), mark))
        if self.random.random() < 0.1:
            self.random.shuffle(pairs)
        return self.fields(pairs)


def plain(body: bytes) -> Any:
    """What the plain decoder says is being deleted, or cannot be told; None where it is no list."""
    value = json.loads(body)
    if not isinstance(value, dict) or not isinstance(value.get("items"), list):
        return None
    return [item for item in value["items"] if is_deleting(item)]


def same(value: object) -> str:
    """As text, because NaN is not equal to itself."""
    return repr(value)


def test_any_list_gives_what_the_plain_decoder_gives() -> None:
    understood = skipped = 0
    for seed in range(EXAMPLES):
        writer = Writer(seed)
        body = writer.body()
        size = writer.random.choice((1, 2, 3, 17, 100, 1000, 1 << 16))
        try:
            head, items = streamed(body, size)
        except ValueError:
            continue
        understood += 1
        skipped += items.count(None)
        assert head["metadata"] == json.loads(body)["metadata"]
        found = [item for item in items if item is not None and is_deleting(item)]
        assert same(found) == same(plain(body)), (seed, body)
    assert understood > 0.7 * EXAMPLES
    assert skipped > 0.2 * EXAMPLES


def test_any_list_of_pods_gives_those_of_guests() -> None:
    query, keep = reader._narrowed(ListQuery(POD, "shop"))
    understood = skipped = kept = 0
    for seed in range(EXAMPLES):
        writer = PodWriter(seed)
        body = writer.body()
        try:
            _, items = streamed(body, writer.random.choice((1, 17, 1000, 1 << 16)), query)
        except ValueError:
            continue
        understood += 1
        skipped += items.count(None)
        found = [item for item in items if item is not None and keep(item)]
        kept += len(found)
        assert same(found) == same([item for item in json.loads(body)["items"] if keep(item)]), (
            seed,
            body,
        )
    assert understood > 0.7 * EXAMPLES
    assert skipped > 0.3 * EXAMPLES
    assert kept > 0.5 * EXAMPLES


def test_no_damage_makes_a_list_shorter() -> None:
    """What is damaged is given up, or still says what the plain decoder would of what is whole."""
    given_up = 0
    for seed in range(EXAMPLES):
        writer = Writer(seed)
        body = writer.damaged(writer.body())
        size = writer.random.choice((1, 17, 1000))
        try:
            _, items = streamed(body, size)
        except ValueError:
            given_up += 1
            continue
        found = [item for item in items if item is not None and is_deleting(item)]
        try:
            expected = plain(body)
        except ValueError:
            # The damage is in an item that is not decoded, and hides no other.
            assert None in items, (seed, body)
            continue
        assert same(found) == same(expected), (seed, body)
    assert given_up > 0.3 * EXAMPLES

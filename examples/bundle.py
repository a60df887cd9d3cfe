"""Write a support bundle as Harvester does, from objects as an API server gives them.

    python -m examples.bundle

builds the example beside this file, an invented cluster in which a node has lost its power, from
the readable objects in `objects/` and the logs in `logs/`. The layout is that of
support-bundle-kit, and so is the damage: empty strings and nulls become the word null, large
numbers become floats (pkg/manager/collectors/common.go). Two builds give the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
EXAMPLE = HERE / "supportbundle.zip"
CREATED = "2026-11-23T03:30:00Z"
UID = "5f1e8c62-7b0d-4a53-9c1e-2d1f0a7b9e34"
NAME = f"supportbundle_{UID}_{CREATED.replace(':', '-')}"

COLLECTED = (
    "default", "kube-system", "cattle-system", "cattle-dashboards", "cattle-monitoring-system",
    "fleet-local", "local", "harvester-system", "longhorn-system",
)  # fmt: skip
"""Namespaces that a bundle holds when nobody asked for more."""

Body = dict[str, Any]


class _Go(yaml.CSafeDumper):
    """Numbers as Go's yaml.v2 writes those that went through a float."""


def _number(dumper: _Go, value: float) -> yaml.Node:
    """As `strconv.FormatFloat(value, 'g', -1, 64)`: from 10^6 on with an exponent."""
    text = repr(value).removesuffix(".0")
    if text.isdigit() and value < 1e6:
        return dumper.represent_scalar("tag:yaml.org,2002:int", text)
    if 1e6 <= abs(value) < 1e16:
        digits = text.partition(".")[0].lstrip("-")
        mantissa = text.lstrip("-").replace(".", "").rstrip("0")
        mantissa = f"{mantissa[0]}.{mantissa[1:]}".rstrip(".")
        text = f"{'-' if value < 0 else ''}{mantissa}e+{len(digits) - 1:02d}"
    return dumper.represent_scalar(_FLOAT, text)


_FLOAT = "tag:yaml.org,2002:float"
_Go.add_representer(float, _number)
_Go.add_implicit_resolver(
    _FLOAT, re.compile(r"^-?[0-9]+(\.[0-9]+)?(e[-+][0-9]+)?$"), list("-0123456789")
)


def write(
    path: Path,
    objects: Iterable[Body],
    *,
    top: str = NAME,
    created: str = CREATED,
    collected: Iterable[str] = COLLECTED,
    logs: Mapping[str, str] | None = None,
    errors: str = "",
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """Write the zip, with everything below a folder `top`.

    `logs` are keyed `namespace/pod/container`, `more` by their path.

    Objects of namespaces that are not `collected` are left out, as a bundle leaves them out. Each
    collected namespace holds at least the ConfigMap that every namespace has.
    """
    members: dict[str, bytes] = {
        "metadata.yaml": _metadata(created),
        "bundleGenerationError.log": errors.encode(),
        **{f"yamls/{name}.yaml": data for name, data in _yamls(objects, collected)},
        **{f"logs/{name}.log": text.encode() for name, text in (logs or {}).items()},
        **(more or {}),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name in sorted(members):
            info = zipfile.ZipInfo(f"{top}/{name}", (2026, 11, 23, 3, 30, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            file.writestr(info, members[name], compresslevel=9)
    return path


def _metadata(created: str) -> bytes:
    lines = {
        "bundlename": "bundle-example",
        "bundleversion": "0.1.0",
        "kubernetesversion": "v1.33.5+rke2r1",
        "projectnamespaceuuid": UID,
        "bundlecreatedat": f'"{created}"',
        "issueurl": '""',
        "issuedescription": "a node lost its power",
    }
    return "".join(f"{key}: {value}\n" for key, value in lines.items()).encode()


def _yamls(objects: Iterable[Body], collected: Iterable[str]) -> Iterable[tuple[str, bytes]]:
    spaces = tuple(collected)
    lists: dict[str, list[Body]] = {}
    for name in spaces:
        root = {"name": "kube-root-ca.crt", "namespace": name}
        certificate = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": root}
        lists.setdefault(f"namespaced/{name}/v1/configmaps", []).append(certificate)
    for body in objects:
        namespace = body["metadata"].get("namespace")
        if namespace is not None and namespace not in spaces:
            continue
        scope = f"namespaced/{namespace}" if namespace is not None else "cluster"
        folder = f"{scope}/{body['apiVersion']}/{_plural(body['kind'])}"
        lists.setdefault(folder, []).append(body)
    return [(name, _dump(items)) for name, items in lists.items()]


def _plural(kind: str) -> str:
    if kind == "NetworkAttachmentDefinition":
        return "network-attachment-definitions"
    if kind.endswith("Policy"):
        return f"{kind.lower().removesuffix('y')}ies"
    return f"{kind.lower()}s"


def _dump(items: list[Body]) -> bytes:
    """One list as a bundle holds it: damaged as text, its numbers floats, its keys sorted."""
    text = json.dumps({"items": items}, separators=(",", ":"), ensure_ascii=False)
    damaged = yaml.dump(damage(text), Dumper=_Go, width=1 << 20, allow_unicode=True)
    return str(damaged).encode()


def damage(text: str) -> Any:
    """What support-bundle-kit makes of the JSON of a list."""
    text = re.sub(r'("[a-zA-Z]+":)(null,)', r'\1"null",', text)
    text = re.sub(r'(\\"[a-zA-Z]+\\":)(null,)', r'\1\\"null\\",', text)
    found = json.loads(text.replace('""', '"null"'), parse_int=float)
    return {"apiVersion": "v1", "kind": "List", **found}


def example() -> Path:
    """Build the example."""
    objects = [
        body
        for file in sorted((HERE / "objects").glob("*.yaml"))
        for body in yaml.safe_load_all(file.read_text())
    ]
    folder = HERE / "logs"
    logs = {
        path.relative_to(folder).with_suffix("").as_posix(): path.read_text()
        for path in sorted(folder.rglob("*.log"))
    }
    # The zip of a node holds the journals of its host, which nobody needs to open here.
    more = {"nodes/harvester-1.zip": b"PK\x05\x06" + b"\x00" * 18}
    return write(EXAMPLE, objects, logs=logs, more=more)


if __name__ == "__main__":
    sys.stdout.write(f"{example()}\n")

"""Build the container image from the archives for Linux, without a daemon and without containers.

    python krew/image.py [--dist dist] [--output build/image]

writes, for each archive for Linux in `dist`, what the image has for its architecture, and one index
of them: an OCI layout in the folder `layout`, whose tag is the version, and beside it a bill of
materials (CycloneDX) for each architecture. Prints the digest of the index. An architecture without
an archive is not in the index, and nothing is ever added to a layout that was there before.

The first layer has glibc, zlib and the certificates of a Debian release, which mmdebstrap fetches
and apt verifies; the second one has the archive. Debian has one version of a package at a time, and
corrects it: the bill says which versions went in, and the same versions, archives and Python give
the same digest. The time in it is that of the archive.

Nothing in the image belongs to the user that it runs as, or can be written by it but /tmp: an undo
file must not be lost with a container. What changes the cluster needs a volume at /state.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from build import NAME, PROGRAM, ROOT, BuildError, archive_name, run, sha256, version

DEBIAN = "trixie"
ARCHITECTURES = ("amd64", "arm64")
# Licences as SPDX writes them; their texts are in the image. Nothing else is taken from Debian.
# libgcc_s is opened by glibc when a thread ends early.
PACKAGES = {
    "ca-certificates": "GPL-2.0-or-later AND MPL-2.0",
    "gcc-14-base": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libc6": "LGPL-2.1-or-later AND GPL-2.0-or-later",
    "libgcc-s1": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "zlib1g": "Zlib",
}
# Their libraries, without those that only convert between character sets, and the licences.
KEPT = re.compile(
    r"usr/lib(64)?/(?!.*/(gconv|audit)/).*\.so[.\d]*|usr/share/doc/[^/]+(/copyright)?"
)
CERTIFICATES = re.compile(r"usr/share/ca-certificates/mozilla/.*\.crt")
BUNDLE = "etc/ssl/certs/ca-certificates.crt"
USER = 65532
HOME = "/home/nonroot"
STATE = "/state"
PLACE = f"opt/{NAME}"
# Of an OCI layout.
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

Descriptor = dict[str, Any]
"""Media type, digest and size of a blob."""


@dataclass
class Layer:
    """What a layer has, by path. Everything belongs to root, and is of one time."""

    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    """Content and mode."""
    links: dict[str, str] = field(default_factory=dict)
    directories: dict[str, int] = field(default_factory=dict)
    """Modes; those above what is there need not be named."""

    def tar(self, time: int) -> bytes:
        """The layer as it is unpacked; `time` in seconds since 1970."""
        above = {
            str(parent): 0o755
            for path in (*self.files, *self.links, *self.directories)
            for parent in PurePosixPath(path).parents
            if parent.name
        }
        directories = {**above, **self.directories}
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for path in sorted({*directories, *self.files, *self.links}):
                entry = tarfile.TarInfo(path)  # owned by 0:0, which have no name
                entry.mtime, content = time, b""
                if path in directories:
                    entry.type, entry.mode = tarfile.DIRTYPE, directories[path]
                elif path in self.links:
                    entry.type, entry.linkname, entry.mode = (
                        tarfile.SYMTYPE,
                        self.links[path],
                        0o777,
                    )
                else:
                    content, entry.mode = self.files[path]
                    entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        return out.getvalue()


@dataclass(frozen=True)
class Layout:
    """The blobs of an OCI layout in `directory`."""

    directory: Path

    def add(self, media_type: str, content: bytes) -> Descriptor:
        """Write a blob."""
        digest = sha256(content)
        blobs = self.directory / "blobs" / "sha256"
        blobs.mkdir(parents=True, exist_ok=True)
        (blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    def add_json(self, media_type: str, content: dict[str, Any]) -> Descriptor:
        """Write a blob of JSON."""
        return self.add(media_type, json.dumps(content, sort_keys=True).encode())

    def finish(self, index: Descriptor, tag: str) -> None:
        """Write what readers look for first."""
        tagged = {**index, "annotations": {"org.opencontainers.image.ref.name": tag}}
        entry = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [tagged]}
        (self.directory / "index.json").write_text(json.dumps(entry, sort_keys=True))
        (self.directory / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def build(dist: Path, output: Path) -> str:
    """Write the image of the archives in `dist` into `output`; its digest. Raises BuildError."""
    archives = {
        architecture: archive
        for architecture in ARCHITECTURES
        if (archive := dist / archive_name(version(), "linux", architecture)).is_file()
    }
    if not archives:
        raise BuildError(f"there is no archive of {version()} for Linux in {dist}: make archive")
    earlier = output / "layout"
    if earlier.exists() and not (earlier / "oci-layout").is_file():
        raise BuildError(f"{earlier} is not an OCI layout, so it is not replaced")
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch, "image")
        layout = Layout(made / "layout")
        manifests = []
        for architecture, archive in archives.items():
            manifest, bill = _image(layout, architecture, archive)
            manifests.append(manifest)
            name = f"{NAME}_{version()}_linux_{architecture}.image.cdx.json"
            (made / name).write_text(f"{json.dumps(bill, indent=1)}\n")
        index = layout.add_json(
            INDEX,
            {
                "schemaVersion": 2,
                "mediaType": INDEX,
                "manifests": manifests,
                "annotations": _labels(),
            },
        )
        layout.finish(index, _tag())
        # What an earlier run wrote goes, and nothing else in the folder.
        if earlier.exists():
            shutil.rmtree(earlier)
        for bill_of_it in output.glob(f"{NAME}_*.image.cdx.json"):
            bill_of_it.unlink()
        shutil.copytree(made, output, dirs_exist_ok=True)
    return str(index["digest"])


def _image(layout: Layout, architecture: str, archive: Path) -> tuple[Descriptor, dict[str, Any]]:
    """What one architecture has, and its bill of materials."""
    base, packages = _base(architecture)
    program, time = _program(archive)
    created = datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    layers, contents = [], []
    for layer, what in ((base, f"Debian {DEBIAN}"), (program, archive.name)):
        tar = layer.tar(time)
        contents.append((f"sha256:{sha256(tar)}", {"created": created, "created_by": what}))
        layers.append(layout.add(LAYER, gzip.compress(tar, 9, mtime=0)))
    config = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {
            "User": f"{USER}:{USER}",
            "Env": [f"PATH=/{PLACE}", f"HOME={HOME}", f"XDG_STATE_HOME={STATE}"],
            "Entrypoint": [PROGRAM],
            "WorkingDir": "/",
            "Labels": {**_labels(), "org.opencontainers.image.created": created},
        },
        "rootfs": {"type": "layers", "diff_ids": [identity for identity, _ in contents]},
        "history": [history for _, history in contents],
    }
    manifest = layout.add_json(
        MANIFEST,
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": layout.add_json(CONFIG, config),
            "layers": layers,
            "annotations": _labels(),
        },
    )
    platform = {"architecture": architecture, "os": "linux"}
    return {**manifest, "platform": platform}, _bill(archive, packages, manifest["digest"])


def _tag() -> str:
    """As in `deploy`: a version without the letter that Krew wants."""
    return version().removeprefix("v")


def _labels() -> dict[str, str]:
    """What the image says of itself."""
    setup = (ROOT / "setup.cfg").read_text()
    about = dict(re.findall(r"^ *(description|Homepage|license_expression) = (.+)$", setup, re.M))
    labels = {
        "title": NAME,
        "description": about["description"],
        "licenses": about["license_expression"],
        "url": about["Homepage"],
        "source": about["Homepage"],
        "documentation": f"{about['Homepage']}/blob/main/deploy/README.md",
        "version": _tag(),
    }
    return {f"org.opencontainers.image.{name}": value for name, value in labels.items()}


def _base(architecture: str) -> tuple[Layer, list[dict[str, Any]]]:
    """The layer of Debian's packages, and each of them for the bill."""
    layer, parts, certificates = Layer(), [], {}
    with tempfile.TemporaryDirectory() as scratch:
        for package in _download(architecture, Path(scratch)):
            part = _part(package)
            if part["name"] not in PACKAGES:
                continue
            parts.append(part)
            with tarfile.open(fileobj=io.BytesIO(_content(package))) as tar:
                for entry in tar:
                    path = entry.name.removeprefix("./")
                    if CERTIFICATES.fullmatch(path):
                        certificates[path] = _read(tar, entry)
                    elif not KEPT.fullmatch(path):
                        continue
                    elif entry.issym():
                        layer.links[path] = entry.linkname
                    elif entry.isreg() or entry.islnk():  # read through a hard link
                        layer.files[path] = _read(tar, entry), entry.mode & 0o755
    if missing := set(PACKAGES) - {part["name"] for part in parts}:
        raise BuildError(f"Debian {DEBIAN} came without {', '.join(sorted(missing))}")
    listed = (certificates[path].rstrip(b"\n") + b"\n" for path in sorted(certificates))
    layer.files[BUNDLE] = b"".join(listed), 0o644
    # Where an OpenSSL looks that was built for /etc/ssl.
    layer.links["etc/ssl/cert.pem"] = "certs/ca-certificates.crt"
    # As Debian has them since all of it is below /usr.
    layer.links |= {"lib": "usr/lib", "lib64": "usr/lib64"}
    layer.directories |= {HOME[1:]: 0o755, STATE[1:]: 0o755, "tmp": 0o1777, "usr/lib64": 0o755}
    for name, line in (
        (
            "passwd",
            f"root:x:0:0:root:/:/sbin/nologin\nnonroot:x:{USER}:{USER}::{HOME}:/sbin/nologin",
        ),
        ("group", f"root:x:0:\nnonroot:x:{USER}:"),
        ("nsswitch.conf", "hosts: files dns"),
    ):
        layer.files[f"etc/{name}"] = f"{line}\n".encode(), 0o644
    return layer, sorted(parts, key=lambda part: str(part["name"]))


def _download(architecture: str, directory: Path) -> list[Path]:
    """The packages, and what they depend on, which apt has verified."""
    wanted = ",".join(PACKAGES)
    options = ("--variant=extract", "--format=null", f"--include={wanted}")
    copy = f"--extract-hook=copy-out /var/cache/apt/archives {directory}"
    run("mmdebstrap", *options, f"--architectures={architecture}", copy, DEBIAN, "-")
    return sorted(directory.rglob("*.deb"))


def _content(package: Path) -> bytes:
    """The tar of what a package unpacks to."""
    command = ("dpkg-deb", "--fsys-tarfile", package)
    return subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603


def _read(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    if file is None:
        raise BuildError(f"{entry.name} is not a file")
    return file.read()


def _part(package: Path) -> dict[str, Any]:
    """A package as the bill names it."""
    shown = "--showformat=${Package} ${Version} ${Architecture}"
    name, number, architecture = run("dpkg-deb", "--show", shown, str(package)).split()
    purl = f"pkg:deb/debian/{name}@{quote(number, safe='')}?arch={architecture}&distro={DEBIAN}"
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": number,
        "purl": purl,
        "licenses": [{"expression": PACKAGES.get(name, "NOASSERTION")}],
        "hashes": [{"alg": "SHA-256", "content": sha256(package.read_bytes())}],
    }


def _program(archive: Path) -> tuple[Layer, int]:
    """The layer of the archive, and its time. Raises BuildError if its checksum does not fit."""
    content = archive.read_bytes()
    checksum = Path(f"{archive}.sha256")
    if not checksum.is_file() or checksum.read_text().split() != [sha256(content), archive.name]:
        raise BuildError(f"{checksum} is missing or not the checksum of {archive.name}")
    layer, times = Layer(), set()
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for entry in tar:
            # The program lies in a folder of its own, which is the only one on PATH.
            path = entry.name.removeprefix(f"{PROGRAM}/")
            layer.files[f"{PLACE}/{path}"] = _read(tar, entry), entry.mode
            times.add(int(entry.mtime))
    (time,) = times
    return layer, time


def _bill(archive: Path, packages: list[dict[str, Any]], digest: str) -> dict[str, Any]:
    """The bill of the archive, with Debian's packages, as one of the image."""
    bill: dict[str, Any] = json.loads(Path(f"{archive}.cdx.json").read_text())
    bill["metadata"]["component"] = {
        "type": "container",
        "name": NAME,
        "version": _tag(),
        "hashes": [{"alg": "SHA-256", "content": digest.removeprefix("sha256:")}],
    }
    bill["components"] = [*packages, *bill["components"]]
    return bill


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Build the container image.")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="default: %(default)s")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "image", help="default: %(default)s"
    )
    arguments = parser.parse_args()
    try:
        sys.stdout.write(f"{build(arguments.dist, arguments.output)}\n")
    except (BuildError, OSError, ValueError, subprocess.CalledProcessError) as failure:
        sys.exit(f"error: {failure}")

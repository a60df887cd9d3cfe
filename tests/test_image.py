"""The container image: what it holds, and the program in it, run as a pod would be.

`make image` builds it and runs these tests, which need skopeo, umoci, runc and root; they are not
part of `make test`.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import platform
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.errors import ExitStatus
from tests.support.container import Container
from tests.support.simulator import Simulator
from tests.support.world import QUICK, ApiServer, World
from tests.test_prometheus import sample, samples

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
BUILT = ROOT / "build" / "image"
"""What `make image` built from the archives in `ARCHIVES`."""
ARCHIVES = ROOT / "build" / "archive"
HERE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
"""The architecture of this machine."""
USER = 65532
NAME = "kubectl-harvester-stuck"
LICENCE = "org.opencontainers.image.licenses"


def call(*command: str | Path) -> str:
    """The output of a command that succeeds."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def make(dist: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Build the image of the archives in `dist`."""
    command = (sys.executable, ROOT / "krew" / "image.py", "--dist", dist, "--output", output)
    return subprocess.run(command, capture_output=True, text=True, check=False)


def archive(dist: Path, architecture: str = HERE) -> Path:
    """The archive of this version."""
    return dist / f"{NAME}_v{__version__}_linux_{architecture}.tar.gz"


def blob(layout: Path, digest: str) -> bytes:
    """A blob of a layout, which is what its name says."""
    algorithm, _, number = digest.partition(":")
    content = (layout / "blobs" / algorithm / number).read_bytes()
    assert hashlib.new(algorithm, content).hexdigest() == number
    return content


def index(layout: Path) -> Any:
    """The index of the image."""
    (only,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert only["annotations"] == {"org.opencontainers.image.ref.name": __version__}
    return json.loads(blob(layout, only["digest"]))


def manifest(layout: Path, architecture: str = HERE) -> Any:
    """The manifest of the image of one architecture."""
    (found,) = (
        json.loads(blob(layout, item["digest"]))
        for item in index(layout)["manifests"]
        if item["platform"] == {"architecture": architecture, "os": "linux"}
    )
    return found


def layers(layout: Path, architecture: str = HERE) -> list[bytes]:
    """The layers as they are unpacked: Debian's, and that of the program."""
    found = manifest(layout, architecture)
    made = [gzip.decompress(blob(layout, item["digest"])) for item in found["layers"]]
    config = json.loads(blob(layout, found["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == [
        f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in made
    ]
    return made


def contents(layer: bytes) -> dict[str, bytes]:
    """The files of a layer."""
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        return {entry.name: _read(tar, entry) for entry in tar if entry.isreg()}


def _read(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(entry)
    assert file is not None
    return file.read()


@pytest.fixture(scope="session")
def layout() -> Path:
    """The layout that `make image` built."""
    assert (BUILT / "layout").is_dir(), "make image builds it first"
    return BUILT / "layout"


@pytest.fixture(scope="session")
def bundle(layout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image of this machine, unpacked."""
    directory = tmp_path_factory.mktemp("image")
    one = f"oci:{directory / 'one'}:{__version__}"
    call("skopeo", "copy", f"oci:{layout}:{__version__}", one)
    call("umoci", "unpack", "--image", one.removeprefix("oci:"), directory / "bundle")
    return directory / "bundle"


@pytest.fixture
def api(simulator: Simulator) -> ApiServer:
    """What `world` is in: the program is the same at the real one."""
    return simulator


@pytest.fixture
def container(bundle: Path, world: World) -> Container:
    """A container with the kubeconfig of the user."""
    kubeconfig = world.kubeconfig()
    kubeconfig.chmod(0o644)
    return Container(bundle, {kubeconfig: "/home/nonroot/.kube/config"})


# What it holds


def test_the_same_archives_give_the_same_image(layout: Path, tmp_path: Path) -> None:
    done = make(ARCHIVES, tmp_path / "again")
    assert done.returncode == 0, done.stderr
    (index_of_it,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert done.stdout.strip() == index_of_it["digest"]
    made = {
        path.relative_to(tmp_path / "again"): path.read_bytes()
        for path in (tmp_path / "again").rglob("*")
        if path.is_file()
    }
    built = {
        path.relative_to(BUILT): path.read_bytes() for path in BUILT.rglob("*") if path.is_file()
    }
    assert made == built


def test_it_can_be_copied_and_says_what_it_is(layout: Path, tmp_path: Path) -> None:
    source = f"oci:{layout}:{__version__}"
    call("skopeo", "copy", "--all", source, f"dir:{tmp_path}")  # reads every blob
    about = json.loads(call("skopeo", "inspect", source))
    labels = about["Labels"]
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}version"] == __version__
    assert labels[f"{prefix}title"] == NAME
    assert labels[LICENCE] == "Apache-2.0"
    assert labels[f"{prefix}source"].startswith("https://github.com/")
    assert labels[f"{prefix}created"] == about["Created"]
    del labels[f"{prefix}created"]
    assert index(layout)["annotations"] == labels
    config = json.loads(blob(layout, manifest(layout)["config"]["digest"]))["config"]
    assert config["User"] == f"{USER}:{USER}"
    assert config["Entrypoint"] == ["kubectl-harvester_stuck"]


def test_the_readme_copies_it_as_deploy_names_it(layout: Path, tmp_path: Path) -> None:
    """To a folder instead of a registry."""
    (command,) = re.findall(r"^\$ (skopeo .*)$", (DEPLOY / "README.md").read_text(), re.M)
    *words, target = command.split()
    assert f"image: {target.removeprefix('docker://')}\n" in (DEPLOY / "metrics.yaml").read_text()
    done = subprocess.run([*words, f"dir:{tmp_path}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "manifest.json").read_text()) == index(layout)


def test_nothing_in_it_can_be_changed_by_its_user(layout: Path) -> None:
    """So that no undo file is lost with a container; /tmp is for other files."""
    for layer in layers(layout):
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            entries = tar.getmembers()
        assert {(entry.uid, entry.gid) for entry in entries} == {(0, 0)}
        assert all(entry.isreg() or entry.isdir() or entry.issym() for entry in entries)
        assert not [entry.name for entry in entries if entry.mode & 0o6000]
        loose = [entry.name for entry in entries if not entry.issym() and entry.mode & 0o022]
        assert loose in ([], ["tmp"])
        assert not [entry.name for entry in entries if ".." in entry.name.split("/")]


def test_each_place_where_an_openssl_looks_has_the_certificates(layout: Path) -> None:
    base, _ = layers(layout)
    whole = contents(base)["etc/ssl/certs/ca-certificates.crt"].decode()
    begins = re.findall(r"^-----BEGIN CERTIFICATE-----$", whole, re.M)
    assert len(begins) == whole.count("BEGIN CERTIFICATE") > 100
    with tarfile.open(fileobj=io.BytesIO(base)) as tar:
        assert tar.getmember("etc/ssl/cert.pem").linkname == "certs/ca-certificates.crt"


def test_the_program_is_that_of_the_archive(layout: Path) -> None:
    _, program = layers(layout)
    with tarfile.open(archive(ARCHIVES)) as tar:
        shipped = {entry.name: _read(tar, entry) for entry in tar}
    held = {
        path.removeprefix(f"opt/{NAME}/"): content for path, content in contents(program).items()
    }
    prefix = "kubectl-harvester_stuck/"
    assert held == {path.removeprefix(prefix): content for path, content in shipped.items()}


def test_the_bill_names_every_package_of_debian_with_its_licence(layout: Path) -> None:
    bill = json.loads((BUILT / f"{NAME}_v{__version__}_linux_{HERE}.image.cdx.json").read_text())
    (described,) = index(layout)["manifests"]
    digest = described["digest"].removeprefix("sha256:")
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    debian = {
        part["name"]: part
        for part in bill["components"]
        if part.get("purl", "").startswith("pkg:deb/debian/")
    }
    base = contents(layers(layout)[0])
    held = {path.split("/")[3] for path in base if path.startswith("usr/share/doc/")}
    assert held | {"libgcc-s1"} == set(debian)  # whose folder is a link to that of gcc-14-base
    for name, part in debian.items():
        assert part["version"], name
        assert part["licenses"][0]["expression"] != "NOASSERTION", name
    of_archive = json.loads(Path(f"{archive(ARCHIVES)}.cdx.json").read_text())["components"]
    assert bill["components"][len(debian) :] == of_archive


def test_every_library_that_the_program_needs_is_in_it(layout: Path, tmp_path: Path) -> None:
    held: set[str] = set()
    needed: dict[str, set[str]] = {}
    for layer in layers(layout):
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            held |= {Path(entry.name).name for entry in tar if not entry.isdir()}
        for path, content in contents(layer).items():
            if content.startswith(b"\x7fELF"):
                file = tmp_path / "file"
                file.write_bytes(content)
                found = re.findall(r"^  NEEDED +(\S+)$", call("objdump", "-p", file), re.M)
                needed[path] = set(found)
    assert len(needed) > 20
    assert {path: names - held for path, names in needed.items() if names - held} == {}


def test_an_image_of_two_architectures_has_the_libraries_of_each(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    dist.mkdir()
    for architecture in ("amd64", "arm64"):
        made = archive(dist, architecture)
        with tarfile.open(made, "w:gz") as tar:
            entry = tarfile.TarInfo("kubectl-harvester_stuck/kubectl-harvester_stuck")
            entry.mtime = 1700000000
            tar.addfile(entry)
        digest = hashlib.sha256(made.read_bytes()).hexdigest()
        Path(f"{made}.sha256").write_text(f"{digest}  {made.name}\n")
        shutil.copy(f"{archive(ARCHIVES)}.cdx.json", f"{made}.cdx.json")
    done = make(dist, tmp_path / "made")
    assert done.returncode == 0, done.stderr
    layout = tmp_path / "made" / "layout"
    assert len(index(layout)["manifests"]) == 2
    for architecture, loader, machine in (
        ("amd64", "usr/lib64/ld-linux-x86-64.so.2", 0x3E),
        ("arm64", "usr/lib/ld-linux-aarch64.so.1", 0xB7),
    ):
        base = layers(layout, architecture)[0]
        with tarfile.open(fileobj=io.BytesIO(base)) as tar:
            assert loader in tar.getnames()
        libraries = {
            content[18]
            for path, content in contents(base).items()
            if content.startswith(b"\x7fELF")
        }
        assert libraries == {machine}


def test_only_an_earlier_image_is_replaced(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    shutil.copytree(ARCHIVES, dist)
    (dist / "layout").mkdir()
    (dist / "layout" / "plan.txt").write_text("of the user")
    done = make(dist, dist)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is not an OCI layout, so it is not replaced" in done.stderr
    assert (dist / "layout" / "plan.txt").read_text() == "of the user"
    (dist / "layout" / "plan.txt").rename(dist / "layout" / "oci-layout")
    stale = dist / f"{NAME}_v0.0.1_linux_arm64.image.cdx.json"
    stale.write_text("{}")
    done = make(dist, dist)
    assert done.returncode == 0, done.stderr
    assert index(dist / "layout")["manifests"]
    assert archive(dist).read_bytes() == archive(ARCHIVES).read_bytes()
    assert not stale.exists()


def test_no_image_without_an_archive(tmp_path: Path) -> None:
    done = make(tmp_path, tmp_path / "never")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert f"there is no archive of v{__version__} for Linux" in line
    assert not (tmp_path / "never").exists()


def test_no_image_of_an_archive_that_its_checksum_does_not_fit(tmp_path: Path) -> None:
    made = archive(tmp_path)
    made.write_bytes(archive(ARCHIVES).read_bytes() + b"more")
    shutil.copy(f"{archive(ARCHIVES)}.sha256", f"{made}.sha256")
    done = make(tmp_path, tmp_path / "never")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert f"not the checksum of {made.name}" in line
    assert not (tmp_path / "never").exists()


# What it does


def test_it_says_its_version(container: Container) -> None:
    run = container.run("version", "--client")
    assert run.status is ExitStatus.OK, run.err
    assert run.out.startswith(f"Client Version: {__version__}\n")


def test_it_lists_what_is_stuck_of_a_cluster(container: Container, world: World) -> None:
    world.delete(world.vm())
    run = container.run("list", "-o", "json")
    assert run.status is ExitStatus.OK, run.err
    assert [item["name"] for item in run.json["items"]] == ["web"]


def test_it_lists_what_is_stuck_of_files(bundle: Path) -> None:
    objects = ROOT / "examples" / "objects"
    run = Container(bundle, {objects: "/objects"}).run("list", "-A", "-f", "/objects", "-o", "json")
    assert run.status is ExitStatus.INCOMPLETE  # as on any machine: they are no whole cluster
    assert "web-1" in {item["name"] for item in run.json["items"]}


def test_it_trusts_the_certificates_of_its_folder(
    container: Container, world: World, tmp_path: Path
) -> None:
    """Where the kubeconfig names none."""
    world.vm()  # and so the namespace
    content = yaml.safe_load(world.kubeconfig().read_text())
    cluster = content["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster.pop("certificate-authority-data"))
    (tmp_path / "config").write_text(yaml.safe_dump(content))
    (tmp_path / "authority").write_bytes(authority)
    kubeconfig = {tmp_path / "config": "/home/nonroot/.kube/config"}
    shipped = Container(container.bundle, kubeconfig).run("list")
    assert shipped.status is ExitStatus.ERROR
    assert "certificate" in shipped.err
    place = "/etc/ssl/certs/ca-certificates.crt"
    mounts = {**kubeconfig, tmp_path / "authority": place}
    run = Container(container.bundle, mounts).run("list")
    assert run.status is ExitStatus.OK, run.err
    held = (container.bundle / "rootfs" / place[1:]).read_text()
    assert held.count("-----BEGIN CERTIFICATE-----") > 100


def test_without_a_volume_nothing_is_released(container: Container, world: World) -> None:
    machine = world.delete(world.vm())
    run = container.run("unstick", "vm", "web", *QUICK, "--yes")
    assert run.status is ExitStatus.ERROR
    place = "/state/kubectl-harvester-stuck/backups"
    assert run.err.splitlines()[-1] == (
        f"error: cannot save VirtualMachine {world.namespace}/web in {place}: "
        "Read-only file system; nothing was changed, try another --backup-dir"
    )
    assert world.now(machine) == machine
    assert world.changes() == []


def test_with_a_volume_the_undo_file_stays(
    container: Container, world: World, tmp_path: Path
) -> None:
    machine = world.delete(world.vm())
    state = tmp_path / "volume"
    state.mkdir()
    shutil.chown(state, USER, USER)
    run = Container(container.bundle, container.mounts, {state: "/state"}).run(
        "unstick", "vm", "web", *QUICK, "--yes", "-o", "json"
    )
    assert run.status is ExitStatus.OK, run.err
    assert world.now(machine) is None
    saved = Path(run.item["backup"])
    kept = state / saved.relative_to("/state")
    assert kept.is_file()
    assert kept.stat().st_uid == USER


def test_the_exporter_of_deploy_runs_in_it(container: Container, world: World) -> None:
    world.power_cut(vm=False)
    account = world.directory / "serviceaccount"
    account.mkdir()
    content = world.api.kubeconfig()
    (account / "token").write_text(content["users"][0]["user"]["token"])
    authority = content["clusters"][0]["cluster"]["certificate-authority-data"]
    (account / "ca.crt").write_bytes(base64.b64decode(authority))
    (account / "namespace").write_text("harvester-system")
    pod = Container(
        container.bundle,
        {account: "/var/run/secrets/kubernetes.io/serviceaccount"},
        environ={
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": world.api.url.rpartition(":")[2],
        },
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (deployment,) = (
        item
        for item in yaml.safe_load_all((DEPLOY / "metrics.yaml").read_text())
        if item["kind"] == "Deployment"
    )
    (described,) = deployment["spec"]["template"]["spec"]["containers"]
    command = [address if word == "0.0.0.0:9790" else word for word in described["command"]]
    assert address in command
    log = world.directory / "log"
    stuck = sample(
        "harvester_stuck_objects",
        namespace=world.namespace, kind="VirtualMachine", state="Stopping",
    )  # fmt: skip
    with pod.running(*command, log=log) as runc:
        found = scrape(f"http://{address}/metrics", log)
        assert found[stuck] == 1
        (process,) = (Path("/proc") / child for child in children(runc))
        status = dict(
            line.split(":\t", 1) for line in (process / "status").read_text().splitlines()
        )
    assert set(status["Uid"].split()) == {str(USER)}
    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


def children(process: int) -> list[str]:
    """The processes that it started."""
    return [
        name
        for task in Path("/proc", str(process), "task").iterdir()
        for name in (task / "children").read_text().split()
    ]


def scrape(url: str, log: Path) -> dict[Any, float]:
    """The first answer that is complete, within a minute."""
    complete = sample("harvester_stuck_list_complete")
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(urllib3.exceptions.HTTPError):
            answer = urllib3.request("GET", url, timeout=20, retries=False)
            found = samples(answer.data.decode())
            if found.get(complete) == 1:
                return found
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)

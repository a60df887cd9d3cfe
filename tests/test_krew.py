"""The archive and the manifest for Krew: built, validated, installed, used, upgraded, removed."""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kubectl_harvester_stuck import __version__
from kubectl_harvester_stuck.errors import ExitStatus
from tests.components.controlplane.server import ControlPlane
from tests.components.krew import build
from tests.support import fastyaml
from tests.support.world import QUICK, World

ROOT = Path(__file__).parent.parent
VERSION = f"v{__version__}"
EPOCH = 1700000000
MEGABYTE = 1_000_000
NAME = "harvester-stuck"
PLATFORMS = [
    ("darwin", "amd64"),
    ("darwin", "arm64"),
    ("linux", "amd64"),
    ("linux", "arm64"),
    ("windows", "amd64"),
]

Done = subprocess.CompletedProcess[str]


def call(*command: str | Path, environ: dict[str, str] | None = None) -> Done:
    """Run `command` without any input."""
    return subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def ok(done: Done) -> str:
    """Its standard output, if it succeeded."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def krew_build(tree: Path, output: Path, **environ: str) -> Path:
    """Build the archive of the sources in `tree`."""
    command = (sys.executable, tree / "krew" / "build.py", "--output", output)
    return Path(ok(call(*command, environ={**os.environ, **environ})).strip())


def krew_render(tree: Path, dist: Path, output: Path, *more: str) -> Done:
    """Render the manifest for the archives in `dist` into a directory."""
    command = (sys.executable, tree / "krew" / "render.py", "--dist", dist, "--output", output)
    return call(*command, *more)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of this test run that all its processes share."""
    base = tmp_path_factory.getbasetemp()
    directory = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "krew"
    directory.mkdir(exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def archive(shared: Path) -> Path:
    """The archive of a copy of this tree, built once in a test run. It takes a while."""
    tree, output = shared / "tree", shared / "served" / VERSION
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not tree.exists():
            for name in ("kubectl_harvester_stuck", "krew"):
                shutil.copytree(ROOT / name, tree / name)
            shutil.copy(ROOT / "LICENSE", tree)
        if not output.exists():
            krew_build(tree, output, SOURCE_DATE_EPOCH=str(EPOCH))
    (found,) = output.glob("*.tar.gz")
    return found


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""


@pytest.fixture
def manifest(archive: Path, shared: Path, tmp_path: Path) -> Iterator[Path]:
    """The manifest of this tree, with the archive where it says."""
    handler = functools.partial(_Quiet, directory=str(shared / "served"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        ok(krew_render(shared / "tree", archive.parent, tmp_path, "--download", url))
        yield tmp_path / "plugins" / f"{NAME}.yaml"
        server.shutdown()


@dataclass(frozen=True)
class Krew:
    """kubectl with Krew, which has nothing installed and an index of its own."""

    directory: Path

    @property
    def root(self) -> Path:
        return self.directory / "root"

    @property
    def index(self) -> Path:
        return self.directory / "index"

    @property
    def environ(self) -> dict[str, str]:
        path = [self.directory / "bin", self.root / "bin", os.environ["PATH"]]
        return {
            "PATH": os.pathsep.join(map(str, path)),
            "HOME": str(self.directory),
            "KREW_ROOT": str(self.root),
            "KREW_DEFAULT_INDEX_URI": self.index.as_uri(),
            "KREW_NO_UPGRADE_CHECK": "1",
            # Whatever would leave this machine fails; loopback is reached without a proxy.
            "HTTP_PROXY": "http://127.0.0.1:1",
            "HTTPS_PROXY": "http://127.0.0.1:1",
        }

    def kubectl(self, *words: str | Path, **environ: str) -> Done:
        """Run kubectl, with its plugins on PATH."""
        kubectl = self.directory / "bin" / "kubectl"
        return call(kubectl, *words, environ={**self.environ, **environ})

    def publish(self, manifest: str) -> None:
        """Commit `manifest` to the index."""
        plugins = self.index / "plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        (plugins / f"{NAME}.yaml").write_text(manifest)
        self.commit(self.index)

    def commit(self, directory: Path) -> None:
        """Commit what is in the directory."""
        git = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-C", directory)
        for words in (("init", "--initial-branch=main"), ("add", "."), ("commit", "-mPublish")):
            ok(call(*git, *words, environ=self.environ))

    def files(self) -> set[str]:
        """Everything below the root, but the index."""
        found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*"))
        return {path for path in found if not path.startswith("index/")}


@pytest.fixture
def krew(tmp_path: Path, kubectl: Path) -> Krew:
    """Krew with an empty root."""
    directory = tmp_path / "krew"
    programs = directory / "bin"
    programs.mkdir(parents=True)
    (programs / "kubectl").symlink_to(kubectl)
    (programs / "kubectl-krew").symlink_to(build.programs() / "krew")
    return Krew(directory)


@pytest.fixture
def installed(krew: Krew, manifest: Path, archive: Path) -> Krew:
    """Krew with the plugin installed from the archive."""
    ok(krew.kubectl("krew", "install", "--manifest", manifest, "--archive", archive))
    return krew


@pytest.fixture
def api(control_plane: ControlPlane) -> ControlPlane:
    """What `world` is in: the real API server only, for the program is the same."""
    return control_plane


# The archive


def test_the_same_sources_give_the_same_archive_anywhere(
    archive: Path, shared: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "elsewhere"
    shutil.copytree(shared / "tree", tree, ignore=shutil.ignore_patterns("__pycache__"))
    git = ("git", "-C", tree, "-c", "user.name=t", "-c", "user.email=t@localhost")
    ok(call(*git, "init", "--quiet"))
    for when in (EPOCH, EPOCH + 1):  # the second commit changes nothing of what is built
        (tree / "NOTES").write_text(str(when))
        ok(call(*git, "add", "."))
        dated = {**os.environ, "GIT_COMMITTER_DATE": f"{when} +0000"}
        ok(call(*git, "commit", "--quiet", "--message=Change", environ=dated))
    again = krew_build(tree, tmp_path / "dist", SOURCE_DATE_EPOCH="")
    assert again.name == archive.name
    assert again.read_bytes() == archive.read_bytes()


def test_the_archive_holds_plain_files_of_one_time_and_no_owner(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        entries = tar.getmembers()
    assert all(entry.isreg() for entry in entries)
    assert {(entry.uid, entry.gid, entry.uname, entry.gname) for entry in entries} == {
        (0, 0, "", "")
    }
    assert {entry.mtime for entry in entries} == {EPOCH}
    names = [entry.name for entry in entries]
    assert names == sorted(names)
    assert not [name for name in names if ".." in name]
    programs = [entry.name for entry in entries if entry.mode == 0o755]
    assert programs == ["kubectl-harvester_stuck/kubectl-harvester_stuck"]
    assert {entry.mode for entry in entries} == {0o644, 0o755}


def test_the_licences_are_in_the_archive(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        own = tar.extractfile("LICENSE")
        assert own is not None
        assert own.read() == (ROOT / "LICENSE").read_bytes()
        licences = {Path(name).name.split("-")[0] for name in tar.getnames() if "licenses/" in name}
    assert licences >= {"Python", "PyYAML", "click", "kubernetes", "tabulate", "urllib3"}


def test_no_archive_without_the_licence_of_its_python(tmp_path: Path) -> None:
    without = "import build, pathlib; build.PYTHON_LICENCES = (); build.build(pathlib.Path('dist'))"
    command = (sys.executable, "-c", without)
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT / "krew")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "comes without its licence" in done.stderr
    assert not (tmp_path / "dist").exists()


def test_the_archive_is_small(archive: Path) -> None:
    assert archive.stat().st_size <= 16 * MEGABYTE
    with tarfile.open(archive) as tar:
        assert sum(entry.size for entry in tar) <= 35 * MEGABYTE


def test_the_checksum_lies_beside_it(archive: Path) -> None:
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert Path(f"{archive}.sha256").read_text() == f"{digest}  {archive.name}\n"


def test_the_bill_of_materials_lies_beside_it_and_is_whole(archive: Path) -> None:
    bill = json.loads(Path(f"{archive}.cdx.json").read_text())
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert bill["metadata"]["component"]["hashes"] == [{"alg": "SHA-256", "content": digest}]
    parts = {part["name"]: part for part in bill["components"] if "purl" in part}
    requirements = (ROOT / "krew" / "requirements.txt").read_text()
    pinned = re.findall(r"^([\w.-]+)==(\S+) \\", requirements, re.M)  # on every platform
    assert {name for name, _ in pinned} | {"python", "openssl", "zlib"} == set(parts)
    assert all(parts[name]["version"] == number for name, number in pinned)
    assert parts["python"]["version"] == sys.version.split()[0]
    with tarfile.open(archive) as tar:
        contents = {}
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            contents[entry.name] = hashlib.sha256(file.read()).hexdigest()
    files = [part for part in bill["components"] if part["type"] == "file"]
    assert {file["name"]: file["hashes"][0]["content"] for file in files} == contents


# The manifest


def test_the_manifest_is_valid_and_what_it_names_can_be_installed(
    manifest: Path, krew: Krew
) -> None:
    validate = build.programs() / "validate-krew-manifest"
    done = call(validate, "-manifest", manifest, environ=krew.environ)
    assert "all 1 spec.platforms installed fine" in ok(done) + done.stderr


def test_the_manifest_keeps_to_the_conventions_of_the_index(manifest: Path) -> None:
    content = fastyaml.load(manifest.read_text())
    spec = content["spec"]
    assert content["metadata"]["name"] == NAME
    assert spec["version"] == VERSION
    assert len(spec["shortDescription"]) <= 50
    assert "kubectl" not in spec["shortDescription"]
    for text in (spec["description"], spec["caveats"]):
        assert max(map(len, text.splitlines())) <= 80
    assert len(spec["caveats"].splitlines()) <= 6
    assert "completion install" in spec["caveats"]


def test_plugin_yaml_is_that_of_the_newest_release() -> None:
    spec = valid(ROOT / "plugins" / f"{NAME}.yaml")["spec"]
    released = re.findall(r"^## v?(\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert spec["version"] == f"v{released[0] if released else __version__}"
    for platform in spec["platforms"]:
        archive = (NAME, spec["version"], *platform["selector"]["matchLabels"].values())
        assert platform["uri"].startswith(f"{spec['homepage']}/releases/download/{archive[1]}/")
        assert Path(platform["uri"]).name.startswith(f"kubectl-{'_'.join(archive)}.")


def fake(
    directory: Path, release: str = VERSION, system: str = "linux", arch: str = "amd64"
) -> Path:
    """Something that looks like an archive, with its checksum."""
    suffix = "zip" if system == "windows" else "tar.gz"
    path = directory / f"kubectl-harvester-stuck_{release}_{system}_{arch}.{suffix}"
    path.write_text(f"{system} on {arch}")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    Path(f"{path}.sha256").write_text(f"{digest}  {path.name}\n")
    return path


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    """An empty directory for archives."""
    directory = tmp_path / "dist"
    directory.mkdir()
    return directory


def refusal(dist: Path, tree: Path = ROOT) -> str:
    """Why no manifest was written."""
    output = dist.parent / "never"
    done = krew_render(tree, dist, output)
    assert done.returncode == 1
    assert not output.exists()
    (line,) = done.stderr.splitlines()
    return line


def rendered(dist: Path) -> Any:
    """The manifest of this tree for the archives in `dist`, which is valid."""
    output = dist.parent / "rendered"
    ok(krew_render(ROOT, dist, output))
    return valid(output / "plugins" / f"{NAME}.yaml")


def valid(manifest: Path) -> Any:
    """What the manifest says, if Krew takes it."""
    validate = build.programs() / "validate-krew-manifest"
    ok(call(validate, "-skip-install", "-manifest", manifest))
    return fastyaml.load(manifest.read_text())


def test_only_platforms_that_were_built_are_in_the_manifest(dist: Path) -> None:
    archives = [fake(dist, system=system) for system in ("darwin", "windows")]
    platforms = rendered(dist)["spec"]["platforms"]
    assert [item["selector"]["matchLabels"]["os"] for item in platforms] == ["darwin", "windows"]
    assert [Path(item["bin"]).suffix for item in platforms] == ["", ".exe"]
    for item, path in zip(platforms, archives, strict=True):
        assert item["uri"].endswith(f"/{VERSION}/{path.name}")
        assert item["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_krew_release_bot_makes_the_same_manifest(dist: Path) -> None:
    for system, arch in PLATFORMS:
        fake(dist, system=system, arch=arch)
    wanted = rendered(dist)
    made = dist.parent / f"{NAME}.yaml"
    made.write_text(
        ok(call(build.programs() / "krew-template", ROOT / ".krew.yaml", VERSION, dist))
    )
    assert valid(made) == wanted
    found = [
        tuple(item["selector"]["matchLabels"].values()) for item in wanted["spec"]["platforms"]
    ]
    assert found == PLATFORMS


def test_what_is_rendered_into_the_tree_is_up_to_date(dist: Path) -> None:
    fake(dist)
    output = dist.parent / "rendered"
    ok(krew_render(ROOT, dist, output))
    assert (ROOT / ".krew.yaml").read_text() == (output / ".krew.yaml").read_text()
    for directory in (ROOT, output):
        published = directory / "plugins" / f"{NAME}.yaml"
        # Git makes no links on Windows.
        assert not published.is_symlink()
        assert published.read_text() == (directory / "plugin.yaml").read_text()


def test_no_archive_no_manifest(dist: Path) -> None:
    assert "there is no archive of" in refusal(dist)


def test_a_stale_checksum_is_refused(dist: Path) -> None:
    fake(dist).write_text("built again")
    assert "not the checksum of" in refusal(dist)


def test_a_missing_checksum_is_refused(dist: Path) -> None:
    Path(f"{fake(dist)}.sha256").unlink()
    assert "is missing or not the checksum" in refusal(dist)


def test_an_archive_of_another_version_is_refused(dist: Path) -> None:
    fake(dist)
    fake(dist, "v0.0.1")
    assert f"v0.0.1_linux_amd64.tar.gz is not an archive of {VERSION}" in refusal(dist)


@pytest.mark.parametrize("placeholder", ["$unknown", "OWNER", "https://example.com", "<version>"])
def test_a_placeholder_is_refused(dist: Path, placeholder: str) -> None:
    fake(dist)
    tree = dist.parent / "tree"
    shutil.copytree(ROOT / "krew", tree / "krew")
    shutil.copytree(ROOT / "kubectl_harvester_stuck", tree / "kubectl_harvester_stuck")
    template = tree / "krew" / "plugin.yaml.in"
    template.write_text(
        template.read_text().replace("harvester-stuck\nspec", f"{placeholder}\nspec")
    )
    assert "placeholder" in refusal(dist, tree)


# The plugin


def test_the_installed_plugin_lists_and_releases(installed: Krew, world: World) -> None:
    machine = world.delete(world.vm())
    environ = world.environ()
    del environ["PATH"], environ["HOME"]
    listed = ok(installed.kubectl(NAME, "list", "-o", "json", **environ))
    assert [item["name"] for item in json.loads(listed)["items"]] == ["web"]
    assert "Terminating" in ok(installed.kubectl(NAME, "list", **environ))
    assert fastyaml.load(ok(installed.kubectl(NAME, "list", "-o", "yaml", **environ)))["items"]
    refused = installed.kubectl(NAME, "unstick", "vm", "web", "--yes", **environ)
    assert refused.returncode == ExitStatus.REFUSED
    ok(installed.kubectl(NAME, "unstick", "vm", "web", *QUICK, "--yes", **environ))
    assert world.now(machine) is None


def test_what_the_api_server_forbids_is_said_by_the_installed_plugin(
    installed: Krew, world: World
) -> None:
    environ = {"KUBECONFIG": str(world.kubeconfig("alice"))}
    forbidden = installed.kubectl(NAME, "list", **environ)
    assert forbidden.returncode == ExitStatus.ERROR
    assert "alice" in forbidden.stderr


def test_the_installed_plugin_says_which_versions_it_has(installed: Krew) -> None:
    said = ok(installed.kubectl(NAME, "version", "--client"))
    assert said.startswith(f"Client Version: {__version__}\nKubernetes Client: ")
    assert ok(installed.kubectl(NAME, "--help")).startswith("Usage: kubectl harvester-stuck ")


def test_a_socks_proxy_needs_nothing_that_krew_did_not_install(
    installed: Krew, tmp_path: Path
) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    cluster = {"server": "https://127.0.0.1:1", "proxy-url": "socks5://127.0.0.1:1"}
    context = {"cluster": "c", "user": "u"}
    content = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "contexts": [{"name": "c", "context": context}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "current-context": "c",
    }
    kubeconfig.write_text(fastyaml.dump(content))
    done = installed.kubectl(NAME, "list", KUBECONFIG=str(kubeconfig))
    assert done.returncode == ExitStatus.ERROR
    assert "refused" in done.stderr
    assert "PySocks" not in done.stderr


def test_the_installed_plugin_completes_once_it_was_told_to(installed: Krew, world: World) -> None:
    world.delete(world.vm())
    script = installed.root / "bin" / "kubectl_complete-harvester_stuck"
    # Without it, kubectl leaves everything to the shell.
    assert ok(installed.kubectl("__complete", NAME, "")) == ":0\n"
    said = installed.kubectl(NAME, "completion", "install")
    assert ok(said) == f"{script}\n"
    assert f"delete {script}" in said.stderr
    commands = ok(installed.kubectl("__complete", NAME, "")).splitlines()
    what = "Show what is stuck: Terminating, Stopping, or on a node that is not responding."
    assert f"list\t{what}" in commands
    words = ("__complete", NAME, "unstick", "vm", "")
    environ = {"KUBECONFIG": str(world.kubeconfig())}
    for _ in range(10):  # a machine that is busy takes longer than somebody at a shell waits
        name, *_ = ok(installed.kubectl(*words, **environ)).splitlines()
        if name != ":4":
            break
    assert name.startswith("web\tTerminating ")


@pytest.mark.parametrize("libraries", [None, "/nowhere/lib"])
def test_a_credential_plugin_gets_the_libraries_of_the_user(
    installed: Krew, world: World, libraries: str | None
) -> None:
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": world.api.kubeconfig()["users"][0]["user"]["token"]},
    }
    plugin = world.directory / "plugin"
    plugin.write_text(
        f'#!/bin/sh\nprintf %s "${{LD_LIBRARY_PATH-none}}" > "$0.saw"\n'
        f"echo '{json.dumps(credential)}'\n"
    )
    plugin.chmod(0o755)
    world.vm()  # and so the namespace
    kubeconfig = world.kubeconfig()
    content = fastyaml.load(kubeconfig.read_text())
    content["users"][0]["user"] = {
        "exec": {
            "apiVersion": credential["apiVersion"],
            "command": str(plugin),
            "interactiveMode": "Never",
        }
    }
    kubeconfig.write_text(fastyaml.dump(content))
    environ = {"LD_LIBRARY_PATH": libraries} if libraries else {}
    ok(installed.kubectl(NAME, "list", KUBECONFIG=str(kubeconfig), **environ))
    assert Path(f"{plugin}.saw").read_text() == (libraries or "none")


def test_an_upgrade_replaces_the_version_and_uninstall_leaves_nothing(
    krew: Krew, manifest: Path
) -> None:
    current = manifest.read_text()
    krew.publish(current.replace(f"version: {VERSION}", "version: v0.0.1"))
    ok(krew.kubectl("krew", "update"))
    before = krew.files()
    assert NAME in ok(krew.kubectl("krew", "search", NAME))
    ok(krew.kubectl("krew", "install", NAME))
    store = krew.root / "store" / NAME
    assert [path.name for path in store.iterdir()] == ["v0.0.1"]
    script = Path(ok(krew.kubectl(NAME, "completion", "install")).strip())
    krew.publish(current)
    ok(krew.kubectl("krew", "upgrade", NAME))
    assert [path.name for path in store.iterdir()] == [VERSION]
    assert str((krew.root / "bin" / "kubectl-harvester_stuck").readlink()).startswith(
        str(store / VERSION)
    )
    ok(krew.kubectl(NAME, "--help"))
    assert ok(krew.kubectl("__complete", NAME, "version")).startswith("version\t")
    ok(krew.kubectl("krew", "uninstall", NAME))
    script.unlink()  # Krew does not know it, as the caveats say
    assert krew.files() == before
    assert krew.kubectl(NAME, "--help").returncode == 1


def test_this_repository_is_an_index_of_its_own(krew: Krew, manifest: Path) -> None:
    repository = krew.directory / "repository"
    listed = ok(call("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"))
    for name in listed.splitlines():
        copy = repository / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy)
    shutil.copy(manifest, repository / "plugins")
    krew.commit(repository)
    ok(krew.kubectl("krew", "index", "add", "own", repository.as_uri()))
    assert "own" in ok(krew.kubectl("krew", "index", "list"))
    found = ok(krew.kubectl("krew", "search", NAME))
    assert f"own/{NAME}" in found
    ok(krew.kubectl("krew", "install", f"own/{NAME}"))
    assert ok(krew.kubectl(NAME, "version", "--client")).startswith(
        f"Client Version: {__version__}\n"
    )
    ok(krew.kubectl("krew", "uninstall", NAME))
    ok(krew.kubectl("krew", "index", "remove", "own"))
    assert "own" not in ok(krew.kubectl("krew", "index", "list"))

"""What a release is made of: wheel, sdist, pins, the tag, and the workflow that makes it."""

from __future__ import annotations

import email
import os
import re
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from kubectl_harvester_stuck import __version__
from tests.support import fastyaml
from tests.test_krew import PLATFORMS, ROOT, VERSION, Done, call, ok
from tools import advisories

STEM = f"kubectl_harvester_stuck-{__version__}"
PACKAGE = {
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "kubectl_harvester_stuck").rglob("*")
    if path.is_file() and path.suffix != ".pyc"
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of wheel and sdist, built from a copy with the rubbish of a working tree."""
    directory = tmp_path_factory.mktemp("release")
    tree = directory / "tree"
    listed = ok(call("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard"))
    for name in listed.splitlines():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    for rubbish in (
        "dist/old.tar.gz",
        "kubectl_harvester_stuck/__pycache__/x.pyc",
        "build/lib/x.py",
    ):
        (tree / rubbish).parent.mkdir(parents=True, exist_ok=True)
        (tree / rubbish).write_text("")
    # The wheel is built from the sdist, so that the sdist can be installed.
    build = (sys.executable, "-m", "build", "--no-isolation", "--outdir", directory / "out", tree)
    ok(call(*build))
    return directory / "out"


def test_the_sdist_holds_the_program_and_what_builds_it(built: Path) -> None:
    with tarfile.open(built / f"{STEM}.tar.gz") as sdist:
        files = {
            name.partition("/")[2] for name in sdist.getnames() if sdist.getmember(name).isreg()
        }
    texts = {"CHANGELOG.md", "LICENSE", "README.md"}
    made = {name for name in files if "egg-info/" in name} | {"PKG-INFO"}
    assert files - made == PACKAGE | texts | {"MANIFEST.in", "pyproject.toml", "setup.cfg"}


def test_the_wheel_holds_the_program_alone(built: Path) -> None:
    with zipfile.ZipFile(built / f"{STEM}-py3-none-any.whl") as wheel:
        files = set(wheel.namelist())
        about = email.message_from_bytes(wheel.read(f"{STEM}.dist-info/METADATA"))
        commands = wheel.read(f"{STEM}.dist-info/entry_points.txt").decode()
    assert "kubectl_harvester_stuck/py.typed" in files
    assert {name for name in files if ".dist-info/" not in name} == PACKAGE
    assert f"{STEM}.dist-info/licenses/LICENSE" in files
    main = "kubectl_harvester_stuck.cli.main:main"
    assert set(commands.split("\n")) >= {
        f"kubectl-harvester_stuck = {main}",
        f"kubectl-harvester-stuck = {main}",
    }
    manifest = fastyaml.load((ROOT / "plugin.yaml").read_text())
    assert f"Homepage, {manifest['spec']['homepage']}" in about.get_all("Project-URL", [])
    assert about["License-Expression"] == "Apache-2.0"


def pins(path: Path) -> set[str]:
    """Name, version and marker of each package that the file names."""
    lines = re.findall(r"^[A-Za-z][^\\\n]*", path.read_text(), re.M)
    return {line.strip().lower().replace("_", "-").replace('"', "'") for line in lines}


def test_what_goes_into_the_archive_is_pinned_with_its_checksums() -> None:
    pinned = ROOT / "krew" / "requirements.txt"
    assert pins(pinned) == pins(ROOT / "krew" / "requirements.in")
    for entry in re.split(r"^(?=\w)", pinned.read_text(), flags=re.M)[1:]:
        assert "--hash=sha256:" in entry


def test_the_audit_asks_about_every_pin_and_fails_where_it_cannot(tmp_path: Path) -> None:
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text('#!/bin/sh\necho "$*"\nfor last; do :; done\ncat "$last"\n')
    stand_in.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    asked = ok(call("bash", ROOT / ".ci" / "audit", environ={**os.environ, "PATH": path}))
    words, _, text = asked.partition("\n")
    assert {"--strict", "--disable-pip", "--require-hashes"} <= set(words.split())
    wanted = pins(ROOT / "krew" / "requirements.in")
    (tmp_path / "asked").write_text(text)
    assert pins(tmp_path / "asked") == {pin.partition(" ;")[0] for pin in wanted}
    assert " ; " not in text


@pytest.fixture
def database(tmp_path: Path) -> Callable[..., Path]:
    """A checkout of the advisory database, with one advisory about PySocks."""

    def write(affected: Mapping[str, object], **more: object) -> Path:
        folder = tmp_path / "database" / "vulns" / "pysocks"
        folder.mkdir(parents=True, exist_ok=True)
        package = {"package": {"ecosystem": "PyPI", "name": "PySocks"}, **affected}
        advisory = {"id": "PYSEC-1", "aliases": ["CVE-1"], "modified": "2026-11-02T00:00:00Z",
                    "affected": [package], **more}  # fmt: skip
        (folder / "PYSEC-1.yaml").write_text(fastyaml.dump(advisory))
        return tmp_path / "database"

    return write


def ecosystem(*events: dict[str, str], kind: str = "ECOSYSTEM") -> dict[str, object]:
    return {"ranges": [{"type": kind, "events": list(events)}]}


@pytest.mark.parametrize(
    ("affected", "is_found"),
    [
        ({"versions": ["1.7.0", "1.7.1"]}, True),
        ({"versions": ["1.7.0"]}, False),
        (ecosystem({"introduced": "0"}), True),
        (ecosystem({"introduced": "0"}, {"fixed": "1.7.1"}), False),
        (ecosystem({"introduced": "0"}, {"fixed": "1.10"}), True),
        (ecosystem({"introduced": "0"}, {"last_affected": "1.7.1"}), True),
        (ecosystem({"introduced": "0"}, {"last_affected": "1.7"}), False),
        (ecosystem({"introduced": "1.7"}, {"introduced": "0"}, {"fixed": "1"}), True),
        (ecosystem({"introduced": "1.7.1"}), True),
        (ecosystem({"introduced": "2"}), False),
        (ecosystem({"introduced": "odd"}), True),
        (ecosystem({"introduced": "0"}, {"fixed": "odd"}), True),
        (ecosystem({"introduced": "0"}, kind="GIT"), False),
    ],
)  # fmt: skip
def test_without_the_network_the_pins_are_looked_up_in_a_checkout(
    database: Callable[..., Path], affected: Mapping[str, object], is_found: bool
) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path, "ADVISORIES": str(database(affected))}
    done = call("bash", ROOT / ".ci" / "audit", environ=environ)
    assert (done.returncode, done.stderr) == (int(is_found), "")
    *found, last = done.stdout.splitlines()
    assert found == (["pysocks 1.7.1: PYSEC-1 (CVE-1)"] if is_found else [])
    assert f"{len(pins(ROOT / 'krew' / 'requirements.in'))} pins, {len(found)} advisories" in last
    assert "the database is of 2026-11-02" in last


def test_an_advisory_that_was_withdrawn_is_none_and_no_database_is_an_error(
    database: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert advisories.main(database({"versions": ["1.7.1"]})) == 1
    assert advisories.main(database({"versions": ["1.7.1"]}, withdrawn="2026-11-03")) == 0
    capsys.readouterr()
    assert advisories.main(tmp_path / "elsewhere") == 2
    assert "is no checkout of the advisory database" in capsys.readouterr().err


def notes(tree: Path, tag: str) -> Done:
    """What the release of the tag is said to be."""
    return call(sys.executable, tree / "krew" / "notes.py", tag)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what notes.py reads."""
    for name in ("krew", "kubectl_harvester_stuck"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / "CHANGELOG.md").write_text(
        f"## Unreleased\n\n- later\n\n## {__version__}\n\n- now\n\n## 0.0.1\n\n- old\n"
    )
    return tmp_path


def test_the_notes_are_those_of_the_release(tree: Path) -> None:
    assert ok(notes(tree, VERSION)) == "- now\n"


def test_a_tag_that_is_not_the_version_makes_no_release(tree: Path) -> None:
    for tag in ("v0.0.1", __version__):
        done = notes(tree, tag)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"error: the tag {tag} is not the version {VERSION}\n"


def test_a_version_that_the_changelog_does_not_have_makes_no_release(tree: Path) -> None:
    for text in ("## Unreleased\n\n- later\n", f"## {__version__}\n\n## 0.0.1\n\n- old\n"):
        (tree / "CHANGELOG.md").write_text(text)
        done = notes(tree, VERSION)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"says nothing below '## {__version__}'" in done.stderr


def test_nearly_everything_that_it_does_is_tested_on_the_frozen_program() -> None:
    collect = (sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider")
    found = {
        program: len(re.findall("::", ok(call(*collect, *program, ROOT / "tests" / "behaviour"))))
        for program in ((), ("--program", sys.executable))
    }
    everything, frozen = found.values()
    assert 0.9 * everything < frozen < everything


def test_the_workflow_builds_what_the_manifest_names_and_tests_first() -> None:
    workflow = fastyaml.load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    jobs = workflow["jobs"]
    built = [item["platform"] for item in jobs["archive"]["strategy"]["matrix"]["include"]]
    assert sorted(built) == ["_".join(platform) for platform in PLATFORMS]

    def before(name: str) -> set[str]:
        needs = jobs[name].get("needs", [])
        direct = {needs} if isinstance(needs, str) else set(needs)
        return direct.union(*map(before, direct))

    for name, job in jobs.items():
        writes = [right for right, given in job["permissions"].items() if given == "write"]
        publishes = writes or name == "krew"
        assert not publishes or before(name) >= {"tag", "test", "archive", "pack"}
    assert workflow["permissions"] == {}
    assert jobs["test"]["uses"] == "./.github/workflows/ci.yml"
    assert before("krew") == set(jobs) - {"krew"}

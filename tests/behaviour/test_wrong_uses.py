"""What people get wrong, on both API servers: one line says what is wrong and what to do next.

A row is a command line, how it ends, and what its message has to say: the mistake, and the next
step. Beside the message stderr may hold one line to paste and one that says where the help is.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from tests.behaviour.test_unstick import _grant
from tests.support.terminal import on_terminal
from tests.support.world import World

USAGE, ERROR, REFUSED = ExitStatus.USAGE, ExitStatus.ERROR, ExitStatus.REFUSED


@dataclass(frozen=True)
class Row:
    """A wrong use; `{}` in it is the namespace of the test, in which VM `web` is Terminating."""

    words: str
    status: ExitStatus
    mistake: str
    next_step: str
    """A regular expression of stderr, as the mistake."""
    user: str = "admin"

    @property
    def name(self) -> str:
        """What pytest calls it."""
        return f"{self.words}{'' if self.user == 'admin' else f' as {self.user}'}"


ROWS = [
    # Commands
    Row("lsit", USAGE, "no such command: lsit", "did you mean list"),
    Row("help lsit", USAGE, "no such command: lsit", "did you mean list"),
    Row("vm web", USAGE, "no such command: vm", "the command comes first, as in diagnose vm"),
    Row("web", USAGE, "no such command: web", "See 'kubectl harvester-stuck --help'"),
    # Flags
    Row("list --bogus", USAGE, "no such option: --bogus", "list --help"),
    Row("list --all", USAGE, "no such option: --all", "did you mean --all-namespaces"),
    Row("unstick -all", USAGE, "no such option: -a", "did you mean --all"),
    Row("-A list", USAGE, "no such option: -A before", "behind it: list,"),
    Row("list -o xml", USAGE, "'xml' is not one of", "'json'"),
    Row("list --older-than soon", USAGE, "'soon' is not a duration", "such as 30s, 5m"),
    Row("journal --since today", USAGE, "'today' is not a duration", "such as 30s, 5m"),
    Row("unstick web --max 0", USAGE, "0 is not in the range", "x>=1"),
    Row("unstick web --max many", USAGE, "'many' is not a valid integer", "unstick --help"),
    Row("unstick web -y --confirm 0", USAGE, "exclude each other", "--yes and --confirm"),
    Row("unstick web --settle 3m", USAGE, "is longer than --timeout", "say --settle 120s or less"),
    Row("unstick web --override guest-stopped", USAGE, "cannot be overridden", "past-grace.* can"),
    Row("unstick web --leave-behind x/y", USAGE, "not in the catalogue", "--finalizer"),
    Row("list -w --exit-code", USAGE, "--watch goes neither", "list --help"),
    Row("diagnose web -A", USAGE, "go without a name", "what to look for"),
    Row("unstick web --all", USAGE, "not both", "name the targets, or say --all"),
    Row("unstick", USAGE, "name the targets", "say --all, -l or --node"),
    Row("restore", USAGE, "name an undo file", "--list shows the files"),
    Row("restore --list -y", USAGE, "it restores none", "--list only shows"),
    Row("list -f x --context y", USAGE, "-f reads files", "--context does not go with it"),
    # Names
    Row("unstick web,db", USAGE, "not by commas", "\nkubectl harvester-stuck unstick web db\n"),
    Row("diagnose Web", USAGE, "'Web' is no name", "\nkubectl harvester-stuck diagnose web\n"),
    Row("unstick web_1", USAGE, "'web_1' is no name", "names have small letters"),
    Row("unstick vm/", USAGE, "a name is missing", "NAMESPACE/NAME or vm/NAME"),
    Row("unstick a/b/c", USAGE, "too many slashes", "at most vm/NAMESPACE/NAME"),
    Row("unstick pod web", USAGE, "'pod' is neither vm nor vmi", "a VM called pod is vm/pod"),
    Row("diagnose vm/web vmi/web", USAGE, "name one kind", "vm/NAME or NAME"),
    Row("unstick -n lab shop/web", USAGE, "-n lab does not go with shop/web", "leave -n out"),
    Row("list web", USAGE, "'web' is neither vm nor vmi", "for one VM use diagnose"),
    Row("restore vmi web", USAGE, "one VM at a time", "vm NAME, or FILE"),
    Row("unstick nope", ERROR, "{}/nope was not found", "list -A shows what is stuck"),
    Row("diagnose nope", ERROR, "{}/nope was not found", "list -A shows what is stuck"),
    Row("restore nope", ERROR, "no undo file of VM {}/nope", "restore --list"),
    Row("restore --list --backup-dir /nope", ERROR, "cannot read /nope: No such", "--backup-dir"),
    Row("restore nope --backup-dir /nope", ERROR, "cannot read /nope: No such", "--backup-dir"),
    Row("restore nope.json", ERROR, "No such file", "unstick says where it saved"),
    Row("finalizers zzz", ERROR, "contains zzz", "finalizers -o name"),
    # Namespaces, nodes, selectors, statements
    Row("list -n {}-gone", ERROR, "namespace {}-gone was not found", "-A looks in all"),
    Row("list --node typo", ERROR, "node typo was not found", "list -A shows where"),
    Row("unstick -A --node typo", ERROR, "node typo was not found", "list -A shows where"),
    Row("list -l a==b==c", USAGE, "a==b==c", "list --help"),
    Row("unstick -l !", USAGE, "!", "unstick --help"),
    Row("unstick web --node-powered-off typo", USAGE, "there is no such node", "as the cluster"),
    Row("unstick web --finalizer x/y", USAGE, "none of these VMs", "diagnose shows"),
    Row("unstick a b c --max 2", REFUSED, "3 targets, and --max is 2", "--max 3"),
    # Clusters and permissions
    Row("list --context typo", ERROR, "typo", "kubectl config get-contexts"),
    Row("list --kubeconfig /nope", ERROR, "/nope", "--kubeconfig|no such file"),
    Row("list -s http://127.0.0.1:1", ERROR, "127.0.0.1:1 was refused", "right host or port"),
    Row("list -f /nope.zip", ERROR, "/nope.zip", "No such file"),
    Row("list", ERROR, 'Forbidden: User "alice" may not', "harvester-stuck-viewer", "alice"),
    Row("diagnose -A", ExitStatus.INCOMPLETE, "Forbidden", "harvester-stuck-viewer", "alice"),
    Row("unstick web", ERROR, "Forbidden", "harvester-stuck-operator", "alice"),
    # Nobody to ask
    Row(
        "unstick web --older-than 0",
        REFUSED,
        "not confirmed",
        "\nkubectl .* --confirm [0-9a-f]{16}\n",
    ),
]


@pytest.fixture
def cluster(world: World) -> World:
    """A VM that is Terminating and may be released."""
    world.delete(world.vm())
    world.api.forget()
    return world


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_one_line_says_what_is_wrong_and_what_to_do_next(cluster: World, row: Row) -> None:
    words = [word.replace("{}", cluster.namespace) for word in row.words.split()]
    run = cluster.run(*words, user=row.user)
    assert run.status is row.status, run.out + run.err
    assert run.out == ""
    assert cluster.changes() == []
    assert "Traceback" not in run.err
    assert re.search(row.mistake.replace("{}", cluster.namespace), run.err), run.err
    assert re.search(row.next_step, run.err), run.err
    # A sentence about what could not be read, or the preview, is wrapped.
    is_wrapped = "Forbidden" in run.err or "type " in run.err
    said = [line for line in run.err.splitlines() if not line.startswith(("kubectl ", "See '"))]
    assert is_wrapped or len(said) == 1, run.err
    # What was stated of the cluster is no matter of the help.
    is_grammar = row.status is USAGE and "none of these VMs" not in run.err
    assert ("See 'kubectl harvester-stuck" in run.err) is is_grammar


def test_who_may_only_look_is_told_the_role(cluster: World) -> None:
    _grant(cluster, "alice", (["*"], ["*"], ["get", "list"]))
    run = cluster.run("unstick", "web", "--older-than", "0", user="alice")
    assert run.status is REFUSED
    assert "harvester-stuck-operator" in run.out
    assert cluster.changes() == []


HOMELESS = pytest.mark.parametrize(
    ("environ", "mistake", "next_step"),
    [
        ({"XDG_STATE_HOME": "state"}, "XDG_STATE_HOME is 'state'", "set it to one, or unset it"),
        ({"XDG_STATE_HOME": "~/state"}, "no absolute path", "set it to one, or unset it"),
        ({"XDG_STATE_HOME": "", "HOME": ""}, "HOME is empty", "set HOME or XDG_STATE_HOME"),
        ({"XDG_STATE_HOME": "", "HOME": "me"}, "HOME is 'me'", "set HOME or XDG_STATE_HOME"),
    ],
)


@HOMELESS
@pytest.mark.parametrize(
    "words", ["unstick web --older-than 0 --yes", "journal", "restore web", "restore --list"]
)
def test_files_of_a_place_that_is_not_known_are_an_error(
    cluster: World,
    words: str,
    environ: dict[str, str],
    mistake: str,
    next_step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(cluster.directory)
    before = set(cluster.directory.iterdir())
    run = cluster.run(*words.split(), environ=cluster.environ(**environ))
    assert run.status is ERROR, run.out + run.err
    assert mistake in run.err
    assert next_step in run.err
    assert run.err.count("\n") == 1
    assert run.out == ""
    assert cluster.changes() == []
    made = {path.name for path in set(cluster.directory.iterdir()) - before}
    assert not [name for name in made if not name.startswith("kubeconfig")]


def test_what_needs_no_such_place_is_no_error(cluster: World) -> None:
    environ = cluster.environ(XDG_STATE_HOME="state")
    for words in (f"restore --list --backup-dir {cluster.directory}", "list"):
        assert cluster.run(*words.split(), environ=environ).status is ExitStatus.OK


# Terminals and streams


def shell(world: World, line: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """The program in a line of bash, as `$@`."""
    return subprocess.run(
        ["bash", "-c", line, "bash", *world.command], env=world.environ(**environ),
        capture_output=True, encoding="utf-8", check=False, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        # The summary of the table is on stderr; of the pipe nothing is said.
        (
            '"$@" list | true; exit ${PIPESTATUS[0]}',
            0,
            r"^1 stuck\. Why:\n  kubectl harvester-stuck diagnose -n \S+\n$",
        ),
        ('"$@" diagnose web | head -1; exit ${PIPESTATUS[0]}', 0, "^$"),
        ('"$@" list >/dev/full', 1, "^error: cannot write to stdout: No space left on device\n$"),
        ('"$@" diagnose web >/dev/full', 1, "cannot write to stdout: No space left"),
        ('"$@" list >&-', 1, "cannot write to stdout"),
        (
            '"$@" unstick web --older-than 0 --yes --backup-dir /dev/null/x',
            1,
            "nothing was changed, try another --backup-dir",
        ),
        ('"$@" unstick web --older-than 0 2>/dev/full', 4, "^$"),
        (
            '"$@" unstick web --older-than 0 <&-',
            4,
            "\nkubectl harvester-stuck unstick web .*--confirm",
        ),
    ],
)
def test_streams_that_fail(cluster: World, line: str, status: int, said: str) -> None:
    done = shell(cluster, line)
    assert done.returncode == status, done.stderr
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert cluster.changes() == []


@pytest.mark.parametrize(
    "environ", [{"LC_ALL": "C"}, {"LANG": "C", "TERM": "dumb"}, {"COLUMNS": "20"}, {"COLUMNS": "0"}]
)
def test_any_locale_and_any_width_show_all(cluster: World, environ: dict[str, str]) -> None:
    for words in ("list", "diagnose web", "unstick web --dry-run=client --older-than 0"):
        done = shell(cluster, f'"$@" {words}', **environ)
        assert done.returncode == 0, done.stderr
        assert f"{cluster.namespace}" in done.stdout
        assert "web" in done.stdout
        assert "\x1b[" not in done.stdout


def test_a_terminal_that_can_do_little_is_asked_in_plain_text(cluster: World) -> None:
    environ = cluster.environ(TERM="dumb", LC_ALL="C")
    words = ("unstick", "web", "--older-than", "0")
    process = on_terminal([*cluster.command, *words], environ, cluster.directory)
    out, _ = process.communicate(b"no\n", 60)
    shown = out.decode()
    assert "not confirmed, nothing was changed" in shown
    assert "--confirm" not in shown.splitlines()[-1]
    assert "\x1b[3" not in shown
    assert process.returncode == REFUSED
    assert cluster.changes() == []

"""Many at once: the VMs of one dead node, while those of live nodes keep every finalizer."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from kubectl_harvester_stuck.errors import ExitStatus
from tests.behaviour.test_unstick import _grant as grant
from tests.behaviour.test_unstick import _revive as revive
from tests.behaviour.test_unstick import _touch as touch
from tests.support import builders
from tests.support.builders import VM_FINALIZER, VMI_FINALIZERS, Body
from tests.support.relay import Answer, Passed, PassOn
from tests.support.world import QUICK, Handle, World, is_dry_run


@dataclass(frozen=True)
class Site:
    """Deleted VMs on a dead node in two namespaces, and VMs on a live node."""

    world: World
    dead: list[Body]
    live: list[Body]


def _populate(world: World, dead: int, live: int) -> Site:
    """One in five of the VMs on the live node was deleted, too."""
    world.dead_node()
    world.live_node()
    here, there = world.namespace, f"{world.namespace}-b"
    site = Site(
        world,
        [
            _guest(world, there if number % 2 else here, f"web-{number}", world.dead)
            for number in range(dead)
        ],
        [
            _guest(world, here, f"db-{number}", world.live, delete=number % 5 == 0)
            for number in range(live)
        ],
    )
    world.api.forget()
    return site


@pytest.fixture
def site(world: World) -> Iterator[Site]:
    """Six VMs of a dead node and two of a live one."""
    yield _populate(world, 6, 2)
    world.api.wipe(f"{world.namespace}-b")


@pytest.fixture
def large_site(world: World) -> Iterator[Site]:
    """Thirty VMs of a dead node and ten of live ones."""
    yield _populate(world, 30, 10)
    world.api.wipe(f"{world.namespace}-b")


def _guest(world: World, namespace: str, name: str, node: str, *, delete: bool = True) -> Body:
    machine = world.create(builders.vm(namespace, name, labels={"app": name.partition("-")[0]}))
    instance = world.create(builders.vmi(namespace, name, node, owner=machine))
    pod = world.create(builders.pod(namespace, f"virt-launcher-{name}-x", node, instance))
    if delete:
        world.delete(pod, gracePeriodSeconds=1)
        world.delete(instance)
        machine = world.delete(machine)
    return machine


def test_one_command_releases_the_dead_nodes_vms_and_no_other(
    large_site: Site,
) -> None:
    world, dead, live = large_site.world, large_site.dead, large_site.live
    before = {item["metadata"]["name"]: world.version(item) for item in live}
    run = world.run(
        *("unstick", "vm", "-A", "--node", world.dead, "--node-powered-off", world.dead),
        *(*QUICK, "--max", "50", "-o", "json"),
        stdin="30 test\n",
    )
    assert run.status is ExitStatus.OK, run.out[-2000:] + run.err
    assert Counter(item["outcome"] for item in run.json["items"]) == {"gone": 30}
    assert [world.now(item) for item in dead] == [None] * 30
    assert {item["metadata"]["name"]: world.version(item) for item in live} == before
    for item in live:
        assert world.finalizers(item) == [VM_FINALIZER]
    assert len(world.sent()) == 90
    assert "30 to release, 0 refused" in run.err
    assert "type 30 test" in run.err


def test_the_plan_of_a_batch_is_one_read_of_the_cluster(
    large_site: Site,
) -> None:
    world = large_site.world
    words = ("unstick", "vm", "-A", "--node", world.dead, "--node-powered-off", world.dead)
    run = world.run(*words, *QUICK, "--max", "50", "--dry-run=client", "-o", "json")
    assert run.status is ExitStatus.OK
    asked = Counter(
        "review" if "reviews" in item.path else item.path.partition("?")[0].split("/")[-1]
        for item in world.api.recorded()
    )
    # One list of each kind in each of the two namespaces, whatever the number of targets.
    assert asked["virtualmachineinstancemigrations"] == 2
    assert asked["review"] == 6
    assert not any(is_dry_run(item) for item in world.api.recorded())


def test_a_batch_over_max_is_refused_as_a_whole(
    site: Site,
) -> None:
    world, dead = site.world, site.dead
    words = ("unstick", "vm", "-A", "--node", world.dead, "--node-powered-off", world.dead)
    run = world.run(*words, *QUICK, "--max", "5", "--yes", "-o", "json")
    assert run.status is ExitStatus.REFUSED
    assert world.changes() == []
    assert {item["refusals"][-1]["guard"] for item in run.json["items"]} == {"within-max"}
    assert {len(item["refusals"]) for item in run.json["items"]} == {1}
    assert len(run.json["items"]) == 6
    assert all(world.finalizers(item) == [VM_FINALIZER] for item in dead)


def test_too_many_are_refused_once_and_before_anything_is_read_of_them(site: Site) -> None:
    world = site.world
    for words in (("-A", "--node", world.dead), ("a", "b", "c", "d", "e", "f")):
        world.api.forget()
        run = world.run("unstick", *words, "--max", "5", "--yes")
        assert (run.status, run.out) == (ExitStatus.REFUSED, "")
        assert run.err == (
            "error: nothing was changed: 6 targets, and --max is 5; name fewer of them, or say"
            " --max 6\n"
        )
        asked = {item.path.partition("?")[0].split("/")[-1] for item in world.api.recorded()}
        # What a plan would be made from.
        assert not asked & {"persistentvolumeclaims", "virtualmachineinstancemigrations"}
        assert words[0] == "-A" or not asked


def test_gaps_of_the_search_are_told_where_there_are_too_many(site: Site) -> None:
    world = site.world
    grant(world, "bob", (["kubevirt.io"], ["*"], ["get", "list"]))
    words = ("unstick", "--all", "--max", "1", "--yes")
    run = world.run(*words, "-o", "json", user="bob")
    assert run.status is ExitStatus.REFUSED
    assert "pods" in {gap["resource"] for gap in run.json["incomplete"]}
    assert "could not read pods" in world.run(*words, user="bob").err


def test_a_line_for_a_whole_node_waives_nothing_that_was_waived_for_some(site: Site) -> None:
    world = site.world
    names = [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in site.dead]
    plain = world.run("unstick", *names, "--older-than=0s", "--override", "no-migration").out
    lines = [line.split() for line in plain.splitlines() if "--node-powered-off" in line]
    assert len(lines) == 6
    assert not any("--node" in words for words in lines)
    assert "--node" in world.run("diagnose", *names).out.split()


def test_one_that_is_refused_does_not_stop_the_others(
    site: Site,
) -> None:
    world, live = site.world, site.live
    words = ("unstick", "vm", "--all", "--node-powered-off", world.dead, "-A")
    run = world.run(*words, *QUICK, "--yes", "-o", "json")
    # The guest of the deleted VM on the live node still runs.
    assert run.status is ExitStatus.REFUSED
    assert Counter(item["outcome"] for item in run.json["items"]) == {"gone": 6, "refused": 1}
    assert all(world.finalizers(item) == [VM_FINALIZER] for item in live)
    # What `diagnose` reads is not read any more: the report of a change does not wait for it.
    asked = [(item.method, item.path) for item in world.api.recorded()]
    last = max(number for number, (method, _) in enumerate(asked) if method in ("PATCH", "DELETE"))
    assert not [path for _, path in asked[last:] if "/deployments" in path]


def test_labels_choose_among_what_is_stuck(site: Site) -> None:
    world = site.world
    words = ("unstick", "vm", "-l", "app=db", "--dry-run=client", "-o", "json")
    run = world.run(*words, *QUICK)
    assert {item["target"]["name"] for item in run.json["items"]} == {"db-0"}


def test_anything_but_the_count_and_the_context_confirms_nothing(
    site: Site,
) -> None:
    world = site.world
    words = ("unstick", "vm", "--all", "--node-powered-off", world.dead, *QUICK)
    for answer in ("yes\n", "3\n", "4 test\n", "3 prod\n"):
        run = world.run(*words, stdin=answer)
        assert run.status is ExitStatus.REFUSED
        assert world.changes() == []


def test_nothing_stuck_is_success_and_says_so(world: World) -> None:
    world.vm()
    run = world.run("unstick", "vm", "--all", "--yes")
    assert (run.status, run.out) == (ExitStatus.OK, "")
    assert run.err == f"Nothing is stuck in {world.namespace} namespace.\n"
    document = world.run("unstick", "vm", "--all", "--yes", "-o", "json").json
    assert document["schema"] == "harvester-stuck/unstick/v1"
    assert document["items"] == []


def test_what_could_not_be_searched_is_no_success(world: World) -> None:
    run = world.run("unstick", "vm", "--all", "--yes", user="alice")
    assert run.status is ExitStatus.ERROR
    assert "Nothing is stuck" not in run.err


@pytest.mark.parametrize("words", [(), ("web", "--all"), ("web", "-A"), ("web", "-l", "a=b")])
def test_targets_are_named_or_searched_for(world: World, words: tuple[str, ...]) -> None:
    assert world.run("unstick", "vm", *words).status is ExitStatus.USAGE


def test_a_vm_whose_node_is_not_known_is_not_chosen_by_node_and_that_is_said(
    world: World,
) -> None:
    world.dead_node()
    machine = world.delete(world.vm())
    run = world.run("unstick", "vm", "--node", world.dead, "--yes")
    assert run.status is ExitStatus.OK
    assert "1 stuck VM names no node and was left out" in run.err
    assert world.finalizers(machine) == [VM_FINALIZER]


@pytest.mark.parametrize("command", ["unstick vm --yes", "list", "diagnose", "list --watch"])
def test_a_node_that_does_not_exist_is_no_all_clear(world: World, command: str) -> None:
    world.vm()
    run = world.run(*command.split(), "--node", "typo")
    assert run.status is ExitStatus.ERROR
    assert "node typo was not found" in run.err


def test_a_node_chooses_what_is_listed_and_diagnosed(site: Site) -> None:
    world = site.world
    for node, expected in (
        (world.dead, {item["metadata"]["name"] for item in site.dead}),
        (world.live, {"db-0"}),
    ):
        listed = world.run("list", "-A", "--node", node, "-o", "json").json["items"]
        assert {item["name"] for item in listed} == expected
        assert {item["node"] for item in listed} == {node}
        told = world.run("diagnose", "-A", "--node", node, "-o", "json").json["items"]
        assert {item["target"]["name"] for item in told} == expected


@pytest.mark.parametrize("command", ["list", "diagnose"])
def test_what_names_no_node_is_left_out_aloud(world: World, command: str) -> None:
    world.dead_node()
    world.delete(world.vm())
    run = world.run(command, "--node", world.dead)
    assert (run.status, run.out) == (ExitStatus.OK, "")
    assert "1 stuck VM names no node and was left out" in run.err
    assert f"Nothing is stuck in {world.namespace} namespace on node {world.dead}." in run.err


def test_what_is_not_being_deleted_yet_is_left_out_and_that_is_said(world: World) -> None:
    world.dead_node()
    for name in ("a", "b"):
        world.vmi(world.vm(name), name)
    off = ("--node-powered-off", world.dead)
    for words in (("--all",), ("--node", world.dead)):
        run = world.run("unstick", "vm", *words, *QUICK, *off, "--yes")
        assert run.status is ExitStatus.REFUSED
        assert "2 stuck VMs were left out, of which nothing is being deleted yet" in run.err
        assert "Nothing is stuck" not in run.err
    gone = world.delete(world.vm("gone"))
    run = world.run("unstick", "vm", "--all", "--max=1", *QUICK, "--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert world.now(gone) is None
    assert [path for _, path in world.changes()] == ["virtualmachines/gone"]


def test_named_it_is_refused_while_nothing_is_being_deleted(world: World) -> None:
    world.dead_node()
    world.vmi(world.vm())
    off = ("--node-powered-off", world.dead)
    for kind in ("vm", "vmi"):
        run = world.run("unstick", kind, "web", *QUICK, *off, "--yes", "-o", "json")
        assert run.status is ExitStatus.REFUSED
        assert [item["guard"] for item in run.item["refusals"]] == ["terminating"]
        assert "its pod is not being deleted yet" in run.item["refusals"][0]["reason"]
    assert world.changes() == []


def test_a_finalizer_that_is_none_is_an_error(world: World) -> None:
    machine = world.delete(world.vm("web", "example.com/mine"))
    for words, says in (
        (("--finalizer", "example.com/mein"), "none of these VMs and VMIs carries it"),
        (("--leave-behind", "example.com/mine"), "is not in the catalogue"),
    ):
        run = world.run("unstick", "vm", "web", *words, *QUICK, "--yes")
        assert run.status is ExitStatus.USAGE
        assert says in run.err
    assert world.finalizers(machine) == ["example.com/mine"]


def test_vmis_without_a_vm_can_be_released_together(world: World) -> None:
    world.live_node()
    instances = [
        world.delete(world.ended_vmi(None, name, finalizers=VMI_FINALIZERS))
        for name in ("a", "b", "c", "d")
    ]
    run = world.run("unstick", "vmi", "--all", *QUICK, "--yes")
    assert run.status is ExitStatus.OK, run.out + run.err
    assert "4 targets: 4 gone" in run.out
    assert [world.now(item) for item in instances] == [None] * 4


def test_an_api_server_that_stops_in_the_middle_is_told_and_the_rest_is_done_later(
    site: Site,
) -> None:
    world, dead = site.world, site.dead
    words = ("unstick", "vm", "-A", "--node", world.dead, "--node-powered-off", world.dead)
    stopped = threading.Event()

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        if request.changes("virtualmachineinstances/web-0"):
            stopped.set()
        return None if stopped.is_set() else pass_on()

    with world.past(between) as environ:
        run = world.run(*words, *QUICK, "--yes", "-o", "json", environ=environ)
    assert stopped.is_set()
    assert run.status is ExitStatus.UNVERIFIED
    outcomes = {item["target"]["name"]: item["outcome"] for item in run.json["items"]}
    failed = {item["target"]["name"] for item in run.json["errors"]}
    assert set(outcomes) | failed == {item["metadata"]["name"] for item in dead}
    assert outcomes["web-0"] == "unknown"
    for item in dead:
        name = item["metadata"]["name"]
        # Whoever was told to be gone is gone; whoever is there was not told to be.
        assert (world.now(item) is None) or outcomes.get(name) != "gone"
        if name in failed:
            assert world.finalizers(item) == [VM_FINALIZER]

    # A VM that has lost its VMI no longer says where it ran: --node cannot find it.
    words = ("unstick", "vm", "-A", "-l", "app=web", "--node-powered-off", world.dead)
    again = world.run(*words, *QUICK, "--yes", "-o", "json")
    assert again.status is ExitStatus.OK, again.out + again.err
    assert [world.now(item) for item in dead] == [None] * len(dead)


def test_the_looks_of_many_targets_share_their_lists(large_site: Site) -> None:
    world = large_site.world
    words = ("unstick", "vm", "-A", "--node", world.dead, "--node-powered-off", world.dead)
    run = world.run(*words, "--older-than=0", "--settle=2s", "--max=50", "--yes", "-o", "json")
    assert Counter(item["outcome"] for item in run.json["items"]) == {"gone": 30}, run.err
    recorded = world.api.recorded()
    # Alone each of them would list migrations in its plan and in three looks.
    lists = [item for item in recorded if item.path.partition("?")[0].endswith("migrations")]
    assert len(lists) < 2 + 3 * 30
    # Pod, VMI and VM are tried before anything is changed, and each once more before its change.
    assert sum(is_dry_run(item) for item in recorded) == 30 * 6


@pytest.mark.parametrize("what", ["starts", "returns", "denied", "touched"])
def test_what_happens_while_others_are_released_stops_those_who_come_later(
    world: World, what: str
) -> None:
    """It happens when the first change is on its way: whoever looks after that has to see it."""
    world.dead_node()
    world.live_node()
    machines = [_guest(world, world.namespace, f"web-{n}", world.dead) for n in range(24)]
    by_name = {item["metadata"]["name"]: item for item in machines}
    versions = {name: world.version(item) for name, item in by_name.items()}
    looked: set[str] = set()
    agreed, changed, alone = threading.Event(), threading.Event(), threading.Lock()
    denials: list[Handle] = []

    def act(name: str) -> None:
        if what == "starts":
            machine = by_name[name]
            instance = world.now(builders.vmi(world.namespace, name, world.dead, owner=machine))
            assert instance is not None
            pod = f"virt-launcher-{name}-y"
            world.create(builders.pod(world.namespace, pod, world.live, instance))
        elif what == "touched":
            touch(world, by_name[name])
            versions[name] = world.version(by_name[name])
        elif what == "returns":
            revive(world, "lease")
        else:
            deny = world.api.deny_updates
            denials.append(deny("pods", "no", namespace=world.namespace, operations=("DELETE",)))

    def between(request: Passed, pass_on: PassOn) -> Answer | None:
        if request.is_first:
            agreed.set()
        name = request.path.rpartition("/virtualmachines/")[2]
        if agreed.is_set() and request.method == "GET" and not changed.is_set():
            looked.update({name} & set(by_name))
        with alone:
            if request.is_change and not changed.is_set():
                changed.set()
                # A webhook and a node are the same for all of them.
                later = sorted(by_name.keys() - looked)
                for name in later[:1] if what in ("denied", "returns") else later:
                    act(name)
        return pass_on()

    words = ("unstick", "vm", *by_name, "--node-powered-off", world.dead, "--max=24", "--yes")
    try:
        with world.past(between) as environ:
            run = world.run(*words, *QUICK, "-o", "json", environ=environ)
    finally:
        for denial in denials:
            denial.remove()
    later = by_name.keys() - looked
    assert looked, run.err
    assert len(later) >= 8
    ends = {item["target"]["name"]: item for item in run.json["items"]}
    guard, outcome = {
        "starts": ("guest-stopped", "refused"),
        "returns": ("guest-stopped", "refused"),
        "denied": ("webhooks-accept", "denied"),
        "touched": ("unchanged", "refused"),
    }[what]
    for name in later:
        assert ends[name]["outcome"] == outcome, ends[name]
        assert guard in {item["guard"] for item in ends[name]["refusals"]}
        assert world.version(by_name[name]) == versions[name]
        assert not [path for _, path in world.changes() if f"{name}-x" in path or name == path]

"""Histories that are played every time: the shortest ones of each kind that was found so far."""

from __future__ import annotations

from tests.histories.play import History, Step

_vm, _wait = Step.of("vm", name="web"), Step.of("wait", minutes=10)
_delete, _stop = Step.of("delete", name="web"), Step.of("stop", name="web")
_unstick = Step.of("unstick")
_off = Step.of("unstick", stated=("n1",))
_no_controller = Step.of("controllers", works=False)


def _held(grace: int = 30) -> Step:
    """A VM whose VMI has a finalizer of somebody who is not there."""
    return Step.of("vm", name="web", strangers=True, grace=grace)


HISTORIES: dict[str, History] = {
    "an ended pod of a failed migration is all that is left": (
        _vm,
        Step.of("migrate", name="web", to="n2", how="failed", hangs=True),
        Step.of("cut", node="n1"),
        _wait,
        Step.of("force", node="n1"),
        _unstick,
    ),
    "an ended pod of a completed migration is all that is left": (
        _vm,
        Step.of("migrate", name="web", to="n2", how="done", hangs=True),
        Step.of("cut", node="n2"),
        _wait,
        Step.of("force", node="n2"),
        _unstick,
    ),
    "an ended pod of a failed migration is left, and the guest is still shutting down": (
        _vm,
        Step.of("migrate", name="web", to="n3", how="failed", hangs=True),
        Step.of("force", node="n1"),
        _unstick,
    ),
    "the ended source of a migration is left, and the guest is still shutting down": (
        _vm,
        Step.of("migrate", name="web", to="n2", how="done", hangs=True),
        Step.of("force", node="n2"),
        _unstick,
    ),
    "a silent node told of lost containers": (
        Step.of("vm", name="web", phase_stays=True),
        Step.of("forget", node="n1"),
        _wait,
        _unstick,
    ),
    "a silent node is said to be Ready": (
        _held(),
        Step.of("lifecycle", works=False),
        Step.of("cut", node="n1"),
        Step.of("wait", minutes=50),
        Step.of("force", node="n1"),
        _wait,
        _unstick,
    ),
    "the guest has an hour to shut down, and no pod": (
        Step.of("vm", name="web", strangers=True, grace=3600, obeys=False),
        _stop,
        Step.of("force", node="n1"),
        _wait,
        _unstick,
    ),
    "virt-controller says Failed within the grace period": (
        Step.of("vm", name="web", strangers=True, obeys=False, grace=120),
        Step.of("force", name="web"),
        _unstick,
    ),
    "the node is back, and learns only now that its guest has to stop": (
        Step.of("vm", name="web", strangers=True, obeys=False, grace=600),
        Step.of("cut", node="n1"),
        _wait,
        _stop,
        Step.of("force", node="n1"),
        Step.of("wait", minutes=20),
        Step.of("back", node="n1"),
        Step.of("wait", minutes=3),
        _unstick,
    ),
    "another machine has the name of the node": (
        _vm,
        Step.of("cut", node="n1"),
        Step.of("delete_vmi", name="web"),
        _no_controller,
        Step.of("wait", minutes=20),
        Step.of("replace", node="n1"),
        _wait,
        _unstick,
    ),
    "another machine has the name of the node, and tells of lost containers": (
        Step.of("vm", name="web", phase_stays=True),
        Step.of("cut", node="n1"),
        _wait,
        Step.of("replace", node="n1", keeps_pods=True),
        Step.of("jam", node="n1"),
        _wait,
        _unstick,
    ),
    "the source of a migration has not seen that it was completed": (
        _vm,
        Step.of("migrate", name="web", to="n2", how="unseen"),
        _delete,
        Step.of("wait", minutes=0.2),
        Step.of("cut", node="n2"),
        _wait,
        Step.of("unstick", stated=("n1",), flags=("--override", "no-migration")),
    ),
    "the target of a migration that is said to have failed runs, and cannot say so": (
        _held(),
        Step.of("migrate", name="web", to="n2", how="crossed"),
        _delete,
        _wait,
        Step.of("force", node="n2"),
        _wait,
        _unstick,
    ),
    "such a target comes back, and learns only now that its guest has to stop": (
        Step.of("vm", name="web", strangers=True, obeys=False, grace=600),
        Step.of("migrate", name="web", to="n2", how="crossed"),
        _delete,
        _wait,
        Step.of("force", node="n2"),
        Step.of("back", node="n2"),
        Step.of("wait", minutes=3),
        _unstick,
    ),
    "the guest moved to another cluster, and nobody here knows yet": (
        Step.of("vm", name="web", phase_stays=True),
        Step.of("jam", node="n1"),
        _no_controller,
        Step.of("depart", name="web", how="moved"),
        _delete,
        Step.of("delete_vmi", name="web"),
        Step.of("wait", minutes=70),
        _unstick,
    ),
    "another VM shares the disk that goes with the VM": (
        Step.of("vm", name="web", disks="datavolume"),
        Step.of("vm", name="other", node="n2", uses="web"),
        Step.of("off", node="n1"),
        _wait,
        _delete,
        _off,
    ),
    "the word is false: the kubelet hangs, virt-handler does not": (
        Step.of("vm", name="web"),
        Step.of("hang", node="n1"),
        _wait,
        _off,
    ),
    "the word is false: the kubelet has no runtime": (
        Step.of("vm", name="web"),
        Step.of("unready", node="n1"),
        _wait,
        _off,
    ),
    "the word is false: the node comes back while the program looks": (
        Step.of("vm", name="web"),
        Step.of("cut", node="n1"),
        _wait,
        Step.of("unstick", stated=("n1",), meanwhile=("looked", "back", "n1")),
    ),
    "the word is false: one heartbeat moves, twenty minutes late": (
        Step.of("vm", name="web"),
        Step.of("clock", node="n1", minutes=-20),
        Step.of("cut", node="n1"),
        _wait,
        Step.of("unstick", stated=("n1",), meanwhile=("looked", "beat", "n1")),
    ),
    "the pod of a restored VM carries the hostname of the first one": (
        Step.of("vm", name="copy", hostname="web"),
        _vm,
        Step.of("off", node="n1"),
        _wait,
        _delete,
        _off,
    ),
    "the pod of a VM in the same domain carries its hostname": (
        _vm,
        Step.of("vm", name="web.eu"),
        Step.of("off", node="n1"),
        _wait,
        _stop,
        _off,
    ),
    "a restored disk goes with the VM": (
        Step.of("vm", name="web", disks="restore"),
        Step.of("off", node="n1"),
        _wait,
        _delete,
        _off,
    ),
    "the disk of a DataVolume goes with the VM": (
        Step.of("vm", name="web", disks="datavolume"),
        Step.of("off", node="n1"),
        _wait,
        _delete,
        _off,
    ),
    "snapshots go with the VM": (
        Step.of("vm", name="web", disks="snapshot"),
        Step.of("off", node="n1"),
        _wait,
        _delete,
        _off,
    ),
    "compute has ended, its sidecar has not": (
        Step.of("vm", name="web", sidecar="survives"),
        _delete,
        _wait,
        _unstick,
    ),
    "an honest power cut": (_vm, Step.of("off", node="n1"), _wait, _stop, _wait, _off),
    "a kubelet that cannot unmount": (
        Step.of("vm", name="web", phase_stays=True),
        Step.of("jam", node="n1"),
        _stop,
        _wait,
        _unstick,
    ),
    "an honest power cut, and the node is back": (
        Step.of("vm", name="web", phase_stays=True),
        Step.of("off", node="n1"),
        Step.of("jam", node="n1"),
        _wait,
        _delete,
        Step.of("back", node="n1"),
        _wait,
        _unstick,
    ),
}
"""By what is told."""

HAVE_TO_GO = (
    "an honest power cut",
    "a kubelet that cannot unmount",
    "an honest power cut, and the node is back",
)

BESIDE = (
    "an ended pod of a failed migration is left, and the guest is still shutting down",
    "the target of a migration that is said to have failed runs, and cannot say so",
    "an honest power cut",
)
"""Those that are played beside the real virt-controller in every run of the tests."""

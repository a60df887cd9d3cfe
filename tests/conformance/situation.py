"""A line of the tables: which objects stand, what the owner of the finalizer does, what is said.

A line says what *stands* as objects of `Place`, the first of which is the one that carries the
finalizer and is being deleted. Then what its owner does when it wakes:

- `lets_go()`: it takes the finalizer off, and changes nothing else;
- `works(…)`: it takes it off after changing what is named;
- `holds(…)`: it leaves it on, and its log says this;
- `rejected(…)`: it would take it off, but a webhook says this to its patch, and to the program's.

Then what the program has to say of the finalizer while the owner sleeps: `DONE` or `OWNERLESS`
where it only has to be taken off, `pending(…)` where work is left, with words of the reason.

Where the two do not agree, the line says why it has to stay so, with `differs`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support import builders

Body = dict[str, Any]


@dataclass(frozen=True)
class Owner:
    """What the owner of the finalizer does when it wakes."""

    action: str
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Said:
    """What the program says of the finalizer: its state, and words of the reason."""

    state: str
    words: tuple[str, ...] = ()


def lets_go(*followed: str) -> Owner:
    """It takes the finalizer off; what happens to these objects does not have to be awaited."""
    return Owner("lets go", followed)


def works(*changed: str) -> Owner:
    """It takes the finalizer off, and these objects (`kind/name`) are gone or not as before."""
    return Owner("works", changed)


def holds(*logged: str) -> Owner:
    """It leaves the finalizer on; its log says this of the object."""
    return Owner("holds", logged)


def rejected(*denied: str) -> Owner:
    """A webhook denies its patch, with these words."""
    return Owner("rejected", denied)


DONE = Said("done")
OWNERLESS = Said("ownerless")
NEVER = Said("never")


def pending(*words: str) -> Said:
    """Work is left, and the reason has these words."""
    return Said("pending", words)


Stands = Callable[["Place"], object]
"""Makes the objects of a line."""


@dataclass(frozen=True)
class Situation:
    """One line. `{at}`, `{other}` and `{name}` in its words stand for what `Place` has."""

    text: str
    finalizer: str
    stands: Stands
    owner: Owner
    said: Said
    differs: str = ""
    since: tuple[int, int] = (1, 4)
    """The first release of Harvester of which the line is true."""


def agree(situation: Situation) -> bool:
    """Whether what is said is what the owner does.

    Work that is left may be done once the owner wakes, or hold it up. Where nobody will ever take
    it off, the owner is seen to hold.
    """
    expected = {
        "lets go": ("done",),
        "rejected": ("done",),
        "works": ("pending", "never"),
        "holds": ("pending", "ownerless"),
    }
    return situation.said.state in expected[situation.owner.action]


@dataclass
class Place:
    """The namespace of a situation, and what stands there.

    `make` creates an object; the first object that is made is the subject.
    """

    create: Callable[[Body], Body]
    remove: Callable[[Body, str], None]
    at: str
    """The namespace."""
    other: str
    """Another namespace, for what should be none of the subject's business."""
    name: str
    """The name of the VM and its VMI: no other situation has one of that name."""
    finalizer: str
    subject: Body | None = None

    def vm(
        self,
        name: str | None = None,
        *,
        disks: tuple[str, ...] = (),
        namespace: str | None = None,
        deleted: bool | None = None,
        finalizers: tuple[str, ...] | None = None,
        annotations: dict[str, str] | None = None,
        interfaces: list[Body] | None = None,
        change: Callable[[Body], None] = lambda _: None,
        **more: Any,
    ) -> Body:
        """A VM. The first is the subject; any other lives, unless it has finalizers.

        `change` is for the spec of its template.
        """
        own = finalizers if finalizers is not None else self._own()
        body = builders.vm(
            namespace or self.at,
            name or self.name,
            own,
            annotations=annotations,
            spec=machine(disks, interfaces or []),
            **more,
        )
        change(body["spec"]["template"]["spec"])
        return self.make(body, deleted=bool(own) if deleted is None else deleted)

    def vmi(
        self, name: str | None = None, *, deleted: bool | None = None,
        finalizers: tuple[str, ...] | None = None, phase: str = "Failed", **more: Any
    ) -> Body:  # fmt: skip
        """A VMI. The first is the subject."""
        own = finalizers if finalizers is not None else self._own()
        node = more.pop("node", None)
        body = builders.vmi(self.at, name or self.name, node, own, phase=phase, **more)
        body["spec"] = {"domain": domain([])}
        return self.make(body, deleted=bool(own) if deleted is None else deleted)

    def pvc(
        self, name: str = "disk-0", *, namespace: str | None = None, deleted: bool = False,
        held: bool = False, **more: Any
    ) -> Body:  # fmt: skip
        """A disk. A deleted one is held by the protection of disks that are in use."""
        body = builders.pvc(namespace or self.at, name, **more)
        body["spec"]["storageClassName"] = "harvester-longhorn"
        body["spec"]["volumeMode"] = "Block"
        if deleted or held:
            body["metadata"]["finalizers"] = ["kubernetes.io/pvc-protection"]
        return self.make(body, deleted=deleted)

    def make(self, body: Body, *, deleted: bool = False) -> Body:
        """Create the object, and delete it as far as its finalizers allow."""
        made = self.create(body)
        if self.subject is None:
            self.subject = made
        if deleted:
            # Any other policy would take these finalizers off.
            has = body["metadata"].get("finalizers", ())
            policies = {"orphan": "Orphan", "foregroundDeletion": "Foreground"}
            self.remove(made, next((policies[x] for x in has if x in policies), "Background"))
        return made

    def _own(self) -> tuple[str, ...]:
        return (self.finalizer,) if self.subject is None else ()

    def words(self, text: str) -> str:
        """A text of the line, with the names of this place."""
        return text.format(at=self.at, other=self.other, name=self.name)


def domain(interfaces: list[Body], disks: tuple[str, ...] = ()) -> Body:
    """What Harvester's webhook asks of every VM: that its memory is known."""
    devices = [
        {"name": f"disk-{number}", "disk": {"bus": "virtio"}} for number, _ in enumerate(disks)
    ]
    return {
        "cpu": {"cores": 1},
        "memory": {"guest": "64Mi"},
        "devices": {
            **({"interfaces": interfaces} if interfaces else {}),
            **({"disks": devices} if devices else {}),
        },
        "resources": {"limits": {"memory": "128Mi", "cpu": "1"}},
    }


def machine(disks: tuple[str, ...], interfaces: list[Body]) -> Body:
    """The spec of a VM with these disks and interfaces."""
    volumes = [
        {"name": f"disk-{number}", "persistentVolumeClaim": {"claimName": claim}}
        for number, claim in enumerate(disks)
    ]
    networks = [{"name": item["name"], "pod": {}} for item in interfaces]
    spec = {
        "domain": domain(interfaces, disks),
        "terminationGracePeriodSeconds": 120,
        **({"volumes": volumes} if volumes else {}),
        **({"networks": networks} if networks else {}),
    }
    return {"runStrategy": "Halted", "template": {"metadata": {}, "spec": spec}}


def line(
    text: str, finalizer: str, stands: Stands, owner: Owner, said: Said,
    *, differs: str = "", since: tuple[int, int] = (1, 4)
) -> Situation:  # fmt: skip
    """One line of a table."""
    return Situation(text, finalizer, stands, owner, said, differs, since)

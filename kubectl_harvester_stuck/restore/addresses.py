"""Who else has a MAC address of the VM that is to be created again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kubectl_harvester_stuck.errors import UnreadableError
from kubectl_harvester_stuck.harvester.target import mac_addresses
from kubectl_harvester_stuck.k8s.kinds import VM, VMI
from kubectl_harvester_stuck.k8s.objects import KubeObject, ObjectRef
from kubectl_harvester_stuck.k8s.snapshot import ClusterSnapshot


@dataclass(frozen=True)
class SharedAddresses:
    """The MAC addresses that are in use, and what could not be read of others."""

    users: Mapping[str, ObjectRef] = field(default_factory=dict)
    """A VM or VMI for each of them."""
    unread: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The same for the operator.

        None refuses the VM, which stays powered off. On different networks the same address
        disturbs nobody; Harvester itself compares them within one (since 1.5, H#4893).
        """
        return (
            *(
                f"MAC address {address} is also that of {other}: Harvester may deny it, and on one"
                " network their guests disturb each other; change one of them before both run"
                for address, other in self.users.items()
            ),
            *(f"could not look who else has its MAC addresses: {why}" for why in self.unread),
        )


def shared(vm: KubeObject, snapshots: Iterable[tuple[ClusterSnapshot, str]]) -> SharedAddresses:
    """Who else has a MAC address of `vm`, by each snapshot in the namespace beside it.

    "" stands for all namespaces.
    """
    ours = mac_addresses(vm)
    users: dict[str, ObjectRef] = {}
    unread: dict[str, None] = {}
    for snapshot, namespace in snapshots if ours else ():
        for kind in (VM, VMI):
            try:
                for other in snapshot.all(kind, namespace):
                    if other.ref.key != vm.ref.key:
                        users |= {
                            address: users.get(address, other.ref)
                            for address in sorted(ours & mac_addresses(other))
                        }
            except UnreadableError as error:
                unread[str(error)] = None
    return SharedAddresses(users, tuple(unread))

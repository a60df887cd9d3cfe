"""A cluster in which everything is real but its machines, for the stories of a power cut.

Real are etcd, kube-apiserver, kube-controller-manager (node lifecycle, taint eviction, pod garbage
collector, garbage collector, PVC protection), virt-controller, and Harvester's webhook and
controllers of VMs. They notice, mark, taint, evict, collect and take off finalizers by themselves.

Played is what has no program here, and nothing else:

- kubelets and virt-handlers are those of `tests/histories/nature.py`, which says from which source
  each rule comes; here kube-controller-manager marks nodes and evicts pods. A kubelet renews its
  Lease and reports the four conditions of its Node, as `kubectl get node -o yaml` shows them;
- the scheduler binds a pod to a node that is Ready (`RealNature.bind`);
- virt-api's webhook puts `kubevirt.io/foregroundDeleteVirtualMachine` on each VMI;
- the volume binder and Longhorn: a disk is made with its volume, bound;
- the minutes after which signs of life are no longer fresh: `Stage.minutes_pass` writes older
  times into what a host without power wrote last. kube-controller-manager trusts its own clock, and
  has noticed before.
"""

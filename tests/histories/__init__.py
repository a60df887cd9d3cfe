"""Random histories of a cluster, against which the program is played as a black box.

Who keeps what:

- `truth`: where a QEMU really runs, whatever the API server says;
- `cluster`: the objects, in the shape that KubeVirt and Kubernetes give them;
- `nature`: kubelets, virt-handlers, the scheduler and the node lifecycle controller;
- `controllers`: KubeVirt's virt-controller and the garbage collector, for the simulated API server;
- `play`: the steps of a history, the operator who runs the program, and the end of the story;
- `oracle`: what must never happen, and what has to;
- `invent`: histories by chance, and the shortest one that still goes wrong.

Nothing here knows the guards of the program. Each rule comes from the documentation or the source
of those who are played, and says from which; paths are those of kubevirt/kubevirt v1.8.3 and of
kubernetes/kubernetes v1.35.4:

- A guest is told to stop by virt-handler when its VMI is being deleted or is not there
  (`pkg/virt-handler/vm.go`: sync), and by the kubelet when its pod is being deleted or is not there
  (`pkg/kubelet/kubelet.go`: HandlePodRemoves). Both need the API server to hear of it. Until then
  it runs, whatever was force-deleted (user guide, `cluster_admin/unresponsive_nodes.md`).
- From then on it has its grace period: virt-handler kills it when that is over
  (hasGracePeriodExpired); without virt-handler virt-launcher does 15 s later, and the kubelet 15 s
  after that
  (`pkg/virt-controller/services/template.go`: gracePeriodPaddingSeconds). The kubelet takes the
  grace period of the spec where it never saw the pod being deleted (`pkg/kubelet/pod_workers.go`:
  calculateEffectiveGracePeriod). So the period begins when the *node* hears of it.
- Only virt-handler and the kubelet of the very machine see a QEMU. That virt-controller writes
  phase Failed means that a pod object is gone or a node is silent
  (`pkg/virt-controller/watch/vmi/lifecycle.go`: updateStatus; `watch/node/node.go`).
- A migration runs at its source until it is completed, and at its target from then on. The pods of
  both stay, ended, until the VMI is deleted (`docs` of live migration; `watch/migration`).
- `ContainerStatusUnknown` is written for a container that the runtime cannot tell of
  (`pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/status/status_manager.go`); its QEMU may run.
- A pod that the kubelet rejects is Failed and has no container statuses
  (`pkg/kubelet/kubelet.go`: rejectPod).
- virt-controller starts a new VMI as soon as the old *object* is gone and the run strategy wants
  one (`watch/vm/vm.go`: syncRunStrategy), and lets a VMI go as soon as its phase is final and no
  pod object is controlled by it (`watch/vmi/lifecycle.go`: updateStatus).
- Ready becomes Unknown 40 s after the last sign of the kubelet; pods that tolerate that for 300 s
  are then deleted, and stay Terminating (`pkg/controller/nodelifecycle`,
  `pkg/controller/tainteviction`).
- Heartbeat and lease are written by the clock of the node (`pkg/virt-handler/heartbeat`,
  `staging/src/k8s.io/component-helpers/apimachinery/lease`).
- The label `vm.kubevirt.io/name` of a pod carries the hostname of the guest
  (`pkg/util/net/dns/sanitize.go`, `services/template.go`: podLabels).
- Dependents go with their last owner, in the foreground or in the background
  (`pkg/controller/garbagecollector/garbagecollector.go`: attemptToDeleteItem).
"""

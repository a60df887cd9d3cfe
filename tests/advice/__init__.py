"""Printed commands, carried out: on invented clusters, and with nothing known of the rules.

`invent` makes a cluster from a number. `server` does what kubectl and virtctl do with a line that
was printed, as far as an API server, the garbage collector and KubeVirt's subresources would, and
rejects what they and Harvester's webhook reject. `oracle` knows which VMs live and what they use,
by KubeVirt's and Harvester's own fields, and says what was lost.

Sources: KubeVirt pkg/virt-api/rest/subresource.go (stop), pkg/virtctl/vm/migrate-cancel; Harvester
pkg/webhook/resources/persistentvolumeclaim and /virtualmachinebackup; Kubernetes
pkg/controller/garbagecollector. It must never be written from `harmless`.
"""

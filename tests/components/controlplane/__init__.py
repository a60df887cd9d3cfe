"""A real etcd and kube-apiserver for the tests, built from pinned Go modules."""

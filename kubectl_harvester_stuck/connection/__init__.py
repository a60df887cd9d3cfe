"""From a kubeconfig to an authenticated HTTP connection. It knows nothing of VMs or finalizers."""

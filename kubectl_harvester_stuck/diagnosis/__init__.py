"""`diagnose`: why a VM is stuck and what to do next. It changes nothing."""

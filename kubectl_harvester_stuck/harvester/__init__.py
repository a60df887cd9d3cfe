"""What is known of VMs, nodes, finalizers and webhooks on a Harvester cluster.

Pure: it judges objects that were read, and reads none itself.
"""

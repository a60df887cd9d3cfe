"""Kubernetes as data: kinds, objects, what was read of a cluster, selectors and units.

Pure: no client, no clock, nothing that is particular to Harvester.
"""

"""Support bundles and files of objects, read as if they were a cluster.

There is no way from here to a change.
"""

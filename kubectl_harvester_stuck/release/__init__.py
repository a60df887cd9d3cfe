"""`unstick`: guards, plan, preflight and the one order in which a VM is released.

It prints nothing.
"""

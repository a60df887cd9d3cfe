"""`restore`: a VM created again, powered off, from the undo file of a release.

It restores no disk data.
"""

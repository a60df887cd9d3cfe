"""Which objects are stuck: `list`, `list --watch` and `finalizers -f`.

It does not say why they are.
"""

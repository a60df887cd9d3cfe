"""What is kept on this machine: undo files and the journal.

It never holds what the cluster holds now.
"""

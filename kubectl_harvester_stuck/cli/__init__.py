"""The command line: flags, terminal, completion and commands.

The only package that imports click; it decides nothing about a VM.
"""

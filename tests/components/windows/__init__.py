"""The program on CPython for Windows, under Wine."""

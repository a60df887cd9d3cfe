"""One module a command: flags in, one call, text and an exit status out.

Everything that costs start-up time is imported inside the commands; `--help` loads click alone.
To add one: a module here, and its command in `COMMANDS` in `cli/main.py`.
"""

"""One module for each command: its flags as a value, which `cli.execute` brings to an answer.

Everything that costs start-up time is imported inside the commands; `--help` loads click alone.
To add one: a module here, and its command in `COMMANDS` in `cli/main.py`.
"""

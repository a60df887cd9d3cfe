"""What another program writes to its standard error, marked as its own on ours."""

from __future__ import annotations

import codecs
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PATIENCE = 1.0
"""Seconds to wait for the rest of the text, once the program has ended."""


@contextmanager
def marked_stderr(mark: str) -> Iterator[int]:
    """A file descriptor for the stderr of a program; each line appears on ours behind `mark`.

    At once, also what is no whole line yet: it may be a question. Nothing of it is changed.
    """
    reading, writing = os.pipe()
    teller = threading.Thread(target=_tell, args=(reading, mark), daemon=True)
    teller.start()
    try:
        yield writing
    finally:
        os.close(writing)
        # A program that it has left behind can keep the other end open.
        teller.join(PATIENCE)


def _tell(reading: int, mark: str) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    is_new = True
    while chunk := os.read(reading, 4096):
        for number, piece in enumerate(decoder.decode(chunk).split("\n")):
            if number:
                _write("\n")
                is_new = True
            if piece:
                _write(mark + piece if is_new else piece)
                is_new = False
    if not is_new:
        _write("\n")
    os.close(reading)


def _write(text: str) -> None:
    # It may be closed, which is no reason to leave the program waiting.
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(text)
        sys.stderr.flush()

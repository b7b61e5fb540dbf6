"""Answers each line that it reads with its number and its bytes, as the way of reading has it that is named."""

import codecs
import sys

how = {
    "stdin": lambda: sys.stdin,
    "text": lambda: open(0, encoding="utf-8"),
    # For a stream that ends: it waits for more than a line.
    "codecs": lambda: codecs.getreader("utf-8")(sys.stdin.buffer),
}
lines = how[sys.argv[1]]()
count = 0
while line := lines.readline():
    count += 1
    # A codec leaves a line its end, whatever it was; files in text mode know LF alone by now.
    text = line.splitlines()[0] if sys.argv[1] == "codecs" else line.rstrip("\n")
    print(f"{count}:{text.encode().hex()}", flush=True)

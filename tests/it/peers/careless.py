"""Reads heads with the parser of Python's own HTTP library, to which a lone CR ends a line. Answers with what was said."""

import sys
from http.client import parse_headers

stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
while headers := parse_headers(stdin):
    # A bare LF, and a name in any letters: this client is answered in a way that others would have to write anew.
    said = stdin.read(int(headers["Content-Length"]))
    stdout.write(b"content-length:%d\n\n%s" % (len(said), said))
    stdout.flush()

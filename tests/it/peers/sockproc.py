"""A client of sockproc: SOCKET COMMAND-LINE. Standard input goes along; prints the status, then both outputs, a line each."""

import socket
import sys

path, command = sys.argv[1:]
given = sys.stdin.buffer.read()
server = socket.socket(socket.AF_UNIX)
server.connect(path)
server.sendall(b"%s\r\n%d\r\n%s" % (command.encode(), len(given), given))
answer = server.makefile("rb")


def counted():
    return answer.read(int(answer.readline()))


print(answer.readline())
print(counted())
print(counted())
print(answer.read())

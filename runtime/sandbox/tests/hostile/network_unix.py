# Connects to a server of this machine through a UNIX socket.
import socket
from target import attempt, socket_name, socket_path


def connect(address):
    with socket.socket(socket.AF_UNIX) as end:
        end.connect(address)


attempt("an abstract socket", connect, "\0" + socket_name)
attempt("a socket file", connect, socket_path)

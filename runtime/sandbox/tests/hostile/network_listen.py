# Listens on a port.
import socket
from target import attempt

attempt("a port", socket.create_server, ("", 0))
attempt("a port", socket.create_server, ("127.0.0.1", 0))

# Connects to a server on this machine, by address and by name.
import socket
from target import attempt, port

attempt("a connection", socket.create_connection, ("127.0.0.1", port), 1)
attempt("a connection", socket.create_connection, ("localhost", port), 1)
attempt("a connection", socket.create_connection, ("::1", port), 1)

# Resolves a host name; the query itself would carry data out.
import socket
from target import attempt

attempt("a name", socket.getaddrinfo, "secret.example.com", 80)
attempt("the machine's names", socket.if_nameindex)

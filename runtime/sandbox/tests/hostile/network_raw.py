# Opens sockets of rare kinds.
import socket
from target import attempt

for family in [socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK, socket.AF_ALG, socket.AF_TIPC, socket.AF_CAN]:
    attempt(f"a socket of {family!r}", socket.socket, family, socket.SOCK_RAW)
attempt("a raw socket", socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
attempt("a pair of sockets", socket.socketpair)

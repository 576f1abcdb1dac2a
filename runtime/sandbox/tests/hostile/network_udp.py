# Sends a datagram to this machine and to the broadcast address.
import socket
from target import attempt, port


def send(address):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        end.sendto(b"hello", (address, port))


attempt("a datagram", send, "127.0.0.1")
attempt("a datagram", send, "255.255.255.255")

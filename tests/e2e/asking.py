"""``python asking.py SERVER NAME...``: asks for all names every fifth of a second, on and on, and reads no answer.

Prints ``ready`` once each was asked ten times.
"""

import socket
import sys
import time

import dns.message


def main() -> None:
    server, *names = sys.argv[1:]
    questions = [dns.message.make_query(name, "A").to_wire() for name in names]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for number in range(1000):
            if number == 10:
                print("ready", flush=True)
            for question in questions:
                client.sendto(question, (server, 53))
            time.sleep(0.2)


if __name__ == "__main__":
    main()

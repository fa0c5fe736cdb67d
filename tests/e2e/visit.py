"""``python visit.py ADDRESS [SECONDS]``: what the site there says, or ``error: ...``."""

import socket
import sys


def main() -> None:
    timeout = float(sys.argv[2]) if len(sys.argv) > 2 else 3.0
    try:
        with socket.create_connection((sys.argv[1], 80), timeout=timeout) as connection:
            print(connection.recv(100).decode())
    except OSError as error:
        print(f"error: {error.strerror or error}")


if __name__ == "__main__":
    main()

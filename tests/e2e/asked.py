"""``python asked.py SERVER NAME [PORT]``: asks by UDP and by TCP, and prints for each the addresses, or ``none``."""

import sys

import dns.exception
import dns.message
import dns.query


def main() -> None:
    server, name, *port = sys.argv[1:]
    question = dns.message.make_query(name, "A")
    for ask in (dns.query.udp, dns.query.tcp):
        try:
            answer = ask(question, server, timeout=1, port=int(port[0]) if port else 53)
            print(*sorted(str(item) for found in answer.answer for item in found) or ["empty"])
        except (OSError, EOFError, dns.exception.DNSException):
            print("none")


if __name__ == "__main__":
    main()

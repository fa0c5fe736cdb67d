"""``python ask.py ADDRESS PORT``: asks for the names on standard input, prints name -> [A, AAAA] as JSON."""

import json
import sys

import dns.message
import dns.query


def main() -> None:
    host, port = sys.argv[1:]
    found: dict[str, list[str | None]] = {}
    for name in sys.stdin.read().split():
        found[name] = []
        for kind in ("A", "AAAA"):
            answer = dns.query.udp(dns.message.make_query(name, kind), host, port=int(port), timeout=3)
            found[name].append(answer.answer[-1][0].to_text() if answer.answer else None)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

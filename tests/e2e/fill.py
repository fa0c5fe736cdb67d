"""``python fill.py COUNT``: so many addresses of 240.0.0.0/4 in the set of IPv4, by whichever backend has it."""

import subprocess
import sys
from ipaddress import IPv4Address


def main() -> None:
    addresses = [str(IPv4Address(0xF0000000 + number)) for number in range(int(sys.argv[1]))]
    if subprocess.run(["ipset", "list", "-t", "gfwlist"], capture_output=True, check=False).returncode == 0:
        command, text = ["ipset", "restore", "-exist"], "".join(f"add gfwlist {each}\n" for each in addresses)
    else:
        command = ["nft", "-f", "-"]
        text = f"add element inet gfwtools gfwlist4 {{ {', '.join(addresses)} }}\n"
    subprocess.run(command, input=text, text=True, check=True)


if __name__ == "__main__":
    main()

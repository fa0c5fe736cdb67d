"""Do the firewalls of this host let the LAN into a tunnel? Judged by a packet, rule by rule.

``judge`` asks the host; ``iptables_rules`` and ``nft_rules`` read its rules as chains; ``crossing`` has the packets of
a connection; ``walk`` follows a ``packet`` through the chains; ``opening`` has the command that lets it pass.
"""

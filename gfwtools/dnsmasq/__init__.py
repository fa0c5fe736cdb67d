"""The daemon dnsmasq: its configuration, a check of it, its process, its service, its answers."""

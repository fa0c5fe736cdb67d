"""A proxy auto-configuration file: JavaScript that a browser asks about each URL."""

import json

from gfwtools.render.exports.values import Meaning, Said
from gfwtools.render.header import header

__all__ = ["pac"]

_FUNCTIONS = """
function has(name) {
  return Object.prototype.hasOwnProperty.call(rules, name);
}

function number(host) {
  var parts = host.match(/^(\\d{1,3})\\.(\\d{1,3})\\.(\\d{1,3})\\.(\\d{1,3})$/);
  if (!parts) return -1;
  return ((parts[1] * 256 + +parts[2]) * 256 + +parts[3]) * 256 + +parts[4];
}

// The longest domain that covers the name decides; "*.x" is what is under x.
function tunnelled(host) {
  var address = number(host);
  for (var i = 0; address >= 0 && i < networks.length; i++) {
    if (networks[i][0] <= address && address <= networks[i][1]) return true;
  }
  if (has(host)) return rules[host] === 1;
  for (var dot = host.indexOf("."); dot >= 0; dot = host.indexOf(".")) {
    host = host.slice(dot + 1);
    if (has("*." + host)) return rules["*." + host] === 1;
    if (has(host)) return rules[host] === 1;
  }
  return false;
}

function FindProxyForURL(url, host) {
  return tunnelled(host.toLowerCase().replace(/\\.$/, "")) ? proxy : "DIRECT";
}
"""


def pac(meaning: Meaning) -> Said:
    """A browser asks about names as it sends them, in A-labels. Addresses are looked up where they are written in the
    URL: a PAC file that resolves names would ask for each of them twice."""
    rules = dict.fromkeys(meaning.cover.tunnelled, 1) | dict.fromkeys(meaning.cover.freed, 0)
    networks = [
        [int(network.network_address), int(network.broadcast_address)]
        for network in meaning.networks
        if network.version == 4
    ]
    body = (
        f"var proxy = {json.dumps(meaning.proxy)};\n"
        f"var rules = {json.dumps(rules, indent=0, separators=(',', ':'))};\n"
        f"var networks = {json.dumps(networks)};\n{_FUNCTIONS}"
    )
    head = header(f"the proxy for the policy {meaning.policy.name}", meaning.list_date, body)
    lost = tuple(str(network) for network in meaning.networks if network.version == 6)
    return Said("".join(f"//{line[1:]}\n" for line in head.splitlines()) + body, lost)

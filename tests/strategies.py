"""Hypothesis strategies: names, lists and strings that somebody hostile would write."""

from hypothesis import strategies as st

# Few labels, so that names meet: ancestors, siblings, public suffixes of both kinds.
LABELS = ("a", "b", "www", "cdn-1", "x_y", "xn--fiqs8s", "0")
TOPS = (
    "com",
    "co.uk",
    "github.io",
    "blogspot.com",
    "appspot.com",
    "tw",
    "gov.tw",
    "ck",
    "kawasaki.jp",
    "google",
    "unknowntld",
)

names = st.builds(
    lambda labels, top: ".".join([*labels, top]),
    st.lists(st.sampled_from(LABELS), min_size=0, max_size=3),
    st.sampled_from(TOPS),
)

HOSTILE = (
    "\n",
    "\r",
    "\0",
    "/#/",
    "#",
    "/",
    '"',
    "'",
    "\\",
    "\x1b[2J",
    " ",
    "\t",
    "%0a",
    "\u2028",
    "。",
    "*",
    "server=/x/1.1.1.1",
    "\x85",
)

_line = st.one_of(
    names.map("||{}".format),
    names.map("@@||{}".format),
    names.map("@@||*.{}".format),
    names.map(".{}".format),
    names.map("|https://{}/path?x=1".format),
    names.map("||*.{}".format),
    names.map("cdn*.{}".format),
    names.map("{}*keyword".format),
    names.map("*{}".format),
    names.map("hk.*{}".format),
    names.map("*://*.{}/*".format),
    names.map("|http:/{}".format),
    names.map("{}#?#.ad".format),
    names.map("||-{}".format),
    names.map("/^https?:\\/\\/[^\\/]+{}/".format),
    st.sampled_from(["google.*", "|http://8.8.4.4/", "keyword", "! comment", "", "||mp", "||com", "[AutoProxy 0.2.9]"]),
    st.sampled_from(["||203.0.113.0/24^", "@@203.0.113.7", "||google/x", "||unknowntld", "||a.com b.com"]),
    st.builds(
        lambda name, junk, at: f"||{name[:at]}{junk}{name[at:]}", names, st.sampled_from(HOSTILE), st.integers(0, 20)
    ),
    st.text(max_size=30),
)

lists = st.lists(_line, max_size=25).map("\n".join)
domains = st.lists(names, max_size=6)
hostile_text = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(HOSTILE), names), max_size=12).map("".join)

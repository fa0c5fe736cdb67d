"""Read ``config.toml``. Every error names the file, the key and what was expected."""

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gfwtools.config.checks import BadValueError, alternatives, show
from gfwtools.config.keys import KEYS
from gfwtools.config.model import Config, Dns, Fetch, Host, Paths, PolicyConfig
from gfwtools.config.trust import require_trusted_file
from gfwtools.errors import ConfigError

__all__ = ["load", "loads"]

#: tomllib takes quadratic time for some nestings; a configuration with every key and its comment has 4 kB.
MAX_BYTES = 256 * 1024
#: The policy that is there without any configuration.
_FIRST = "gfwlist"
_POLICY_NAME = r"[a-z][a-z0-9_-]{0,30}"


def load(path: Path, root: Path = Path("/"), *, required: bool = False) -> Config:
    """Read the configuration at ``path``; where there is none, and it is not ``required``, the defaults.

    :raises ConfigError: the file cannot be read or says something that cannot be meant.
    :raises StoreError: this is root, and another user can write it.
    """
    path = Paths(root).follow(path) if path.is_relative_to(root) else path
    require_trusted_file(path, root)
    try:
        status = path.stat()
        if not (
            stat.S_ISREG(status.st_mode)
            or stat.S_ISDIR(status.st_mode)
            or os.path.samestat(status, os.stat(os.devnull))
        ):
            # A pipe would keep us waiting; open() reports a folder.
            raise ConfigError(f"{path}: no regular file", "give the file itself")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if required:
            raise ConfigError(f"{path}: no such file", "`gfwtools bootstrap` writes one") from None
        return Config(root=root)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8", "save the file as UTF-8") from None
    return loads(text, str(path), root)


def loads(text: str, name: str = "config.toml", root: Path = Path("/")) -> Config:
    """Read a configuration from ``text``; ``name`` is what errors call the file.

    :raises ConfigError: with ``NAME: KEY: what is wrong; what to give`` in one line.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(
            f"{name}: larger than {MAX_BYTES} bytes; no configuration is, and lists have files of their own"
        )
    import tomllib  # 2 ms that a host without a configuration does not need

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a ValueError that is no TOMLDecodeError: a number of 5,000 digits
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{name}: not TOML: {reason or 'nested too deeply'}") from None
    sections: dict[str, Any] = {"fetch": Fetch(), "dns": Dns(), "host": Host()}
    policies: list[PolicyConfig] = []
    for key, value in document.items():
        if key == "policy":
            for policy_name, table in _table(value, name, key).items():
                where = f"policy.{_key(policy_name)}"
                if not re.fullmatch(_POLICY_NAME, policy_name):
                    raise ConfigError(
                        f"{name}: {where}: {show(policy_name)} is not a name for a policy",
                        "use small letters, digits, - and _, 31 at most",
                    )
                index = sum(policy.name != _FIRST for policy in policies) + (_FIRST in value)
                policies.append(_fill(_new_policy(policy_name, index), _table(table, name, where), name, where))
        elif key in sections:
            sections[key] = _fill(sections[key], _table(value, name, key), name, key)
        else:
            raise ConfigError(f"{name}: {_key(key)}: unknown key", f"expected {alternatives([*sections, 'policy'])}")
    config = Config(**sections, policies=tuple(policies) or (PolicyConfig(),), root=root)
    _check_together(config, name)
    return config


def _new_policy(name: str, index: int) -> PolicyConfig:
    """The defaults of the policy called ``name``; further ones differ from the first in all that must differ."""
    first = PolicyConfig()
    if name == _FIRST:
        return first
    set_name = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:23]
    return first._replace(name=name, set=set_name, mark=first.mark + index, table=first.table + index)


def _check_together(config: Config, name: str) -> None:
    """Checks what needs several keys: the policies among themselves, and a manager with its command."""
    if config.dns.manager == "command" and not config.dns.restart:
        raise ConfigError(
            f'{name}: dns.restart: needed with manager = "command"',
            'give the command as a list, ["service", "dnsmasq", "restart"]',
        )
    if config.fetch.connect_timeout > config.fetch.timeout:
        raise ConfigError(
            f"{name}: fetch.connect_timeout: {config.fetch.connect_timeout:g} is more than "
            f"fetch.timeout, {config.fetch.timeout:g}",
            "give less",
        )
    most = config.host.connmark_mask // (config.host.connmark_mask & -config.host.connmark_mask)
    if len(config.policies) > most:
        raise ConfigError(
            f"{name}: host.connmark_mask: {config.host.connmark_mask:#x} has room for {most} "
            f"{'policy' if most == 1 else 'policies'}, and there are {len(config.policies)}",
            "give more bits",
        )
    for policy in config.policies:
        if policy.direct and policy.granularity == "host":
            raise ConfigError(
                f'{name}: policy.{policy.name}.direct: with granularity = "host" no rule is widened, and a direct list '
                "changes nothing",
                "remove one of the two",
            )
    for key in ("mark", "table", "set"):
        seen: dict[object, str] = {}
        for policy in config.policies:
            value = getattr(policy, key)
            other = seen.setdefault(value, policy.name)
            if other != policy.name:
                shown = hex(value) if key == "mark" else value
                raise ConfigError(
                    f"{name}: policy.{policy.name}.{key}: {shown} is policy.{other}'s",
                    f"give each policy a {key} of its own",
                )
    names: dict[str, str] = {}
    for policy in config.policies:
        kinds = (policy.set, f"{policy.set}_seed", policy.direct_set)
        # nftables has each kind for both families, ipset two of the names without one.
        for derived in (policy.set, policy.direct_set, *(f"{kind}{family}" for kind in kinds for family in (4, 6))):
            other = names.setdefault(derived, policy.name)
            if other != policy.name:
                raise ConfigError(
                    f"{name}: policy.{policy.name}.set: {derived} is a set of policy.{other} as well",
                    "give names that do not end in 4, 6, _seed or _direct",
                )


def _table(value: object, name: str, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name}: {where}: expected a table, [{where}]")
    return value


def _fill(default: Any, table: Mapping[str, Any], name: str, where: str) -> Any:
    """``default`` with the keys of ``table`` in place, each through its check."""
    keys = KEYS[type(default)]
    changes = {}
    for key, value in table.items():
        if key not in keys:
            raise ConfigError(f"{name}: {where}.{_key(key)}: unknown key", f"expected {alternatives(keys)}")
        try:
            changes[key] = keys[key].check(value)
        except BadValueError as bad:
            raise ConfigError(f"{name}: {where}.{key}: {bad}") from None
    return default._replace(**changes)


def _key(key: str) -> str:
    """A key as it stands in the file, where it can be printed."""
    return key if len(key) <= 60 and key.isprintable() else show(key)

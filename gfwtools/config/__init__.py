"""What the user says: ``/etc/gfwtools/config.toml`` as frozen, validated values."""

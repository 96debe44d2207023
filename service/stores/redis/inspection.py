"""What a Redis server's settings mean for sessions, in words for the operator's log."""

from __future__ import annotations


def risks(info: bytes) -> list[str]:
    """Return what would lose sessions, from a server's answer to INFO."""
    facts = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    found = []
    policy = facts.get("maxmemory_policy", "noeviction")
    if facts.get("maxmemory", "0") != "0" and policy != "noeviction":
        found.append(
            f"redis throws sessions away when its memory is full (maxmemory-policy {policy}): set"
            " noeviction"
        )
    if facts.get("aof_enabled") == "0":
        found.append(
            "redis forgets what came after its last snapshot when it restarts (appendonly no): set"
            " appendonly yes"
        )
    return found

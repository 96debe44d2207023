"""`python -m tests.chaos`: the whole run, its figures and its verdict."""

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.cluster import EmbeddedCluster, RedisCluster
from tests.chaos.run import Goals, Plan, run


def main():
    """Run, print, and return 0 if the service kept its promises."""
    parser = argparse.ArgumentParser(prog="make chaos", description="Break it, and check.")
    parser.add_argument("--seed", type=int, default=None, help="of clients and faults [random]")
    parser.add_argument("--store", choices=["redis", "embedded"], default="redis")
    parser.add_argument("--steps", type=int, default=100_000, help="acknowledged steps [100000]")
    parser.add_argument("--faults", type=int, default=30, help="faults with commits [30]")
    parser.add_argument("--max-s", type=float, default=600.0, help="of traffic [600]")
    parser.add_argument("--mutant", help="a broken service of mutants.py, to see it found out")
    parser.add_argument("--directory", type=Path, help="keep logs and data there")
    options = parser.parse_args()
    seed = secrets.randbits(32) if options.seed is None else options.seed
    print(f"seed {seed}, store {options.store}", flush=True)
    enough = dict.fromkeys(("unknown", "replays", "conflicts", "resumed"), 100)
    goals = Goals(steps=options.steps, faults=options.faults, **enough)
    plan = Plan(seed=seed, goals=goals, max_s=options.max_s)
    with tempfile.TemporaryDirectory(prefix="lstm-chaos-") as temporary:
        directory = options.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        kind = RedisCluster if options.store == "redis" else EmbeddedCluster
        program = (str(Path(__file__).with_name("mutants.py")), options.mutant)
        cluster = kind(directory, program) if options.mutant else kind(directory)
        verdict = run(cluster, plan, lambda text: print(text, flush=True))
    print(verdict.report())
    if not verdict.is_good:
        print(f"again: make chaos ARGS='--seed {seed} --store {options.store}'")
    return 0 if verdict.is_good else 1


if __name__ == "__main__":
    sys.exit(main())

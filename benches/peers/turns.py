"""The side of a peer that waits for its turns (the Rust example `encode_speed` does the same)."""

import sys
import time


def take_turns(run):
    """Calls `run` once for every line on standard input and prints its seconds."""
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)

#!/usr/bin/env python3
"""Exact nearest neighbours among a million features: clipood beside faiss' IndexFlatIP, on the same numbers and threads.

    python benches/peers/search.py target/release/examples/search_speed [--rows 1000000] [--dim 512] [--k 10] [--rounds 5]

Prints one line per program: seconds to build, median milliseconds per query. Fails if the rows found differ by more than equal cosines.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np


def features(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    """Unit rows around a common direction, as CLIP's features are, with decaying variance of the others."""
    scale = (np.arange(dim, dtype=np.float32) + 10) ** -0.5
    common = rng.standard_normal(dim, dtype=np.float32) * 0.3
    out = np.empty((rows, dim), np.float32)
    for start in range(0, rows, 100_000):
        part = out[start : start + 100_000]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32) * scale + common
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return out


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    rows, queries = features(rng, args.rows, args.dim), features(rng, args.queries, args.dim)
    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("rows.f32", "queries.f32")]
        rows.tofile(files[0])
        queries.tofile(files[1])
        command = [args.program, *files, str(args.dim), str(args.k), str(args.rounds)]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    faiss.omp_set_num_threads(os.cpu_count())
    start = time.perf_counter()
    index = faiss.IndexFlatIP(args.dim)
    index.add(rows)
    build = time.perf_counter() - start
    seconds = []
    for _ in range(args.rounds):
        for query in queries:
            start = time.perf_counter()
            index.search(query[None], args.k)
            seconds.append(time.perf_counter() - start)

    # Rows found by one and not the other must have equal cosines, to float32's rounding.
    different = 0
    for query, found in zip(queries, ours["found"]):
        exact = rows[found].astype(np.float64) @ query.astype(np.float64)
        best = index.search(query[None], args.k)[1][0]
        expected = rows[best].astype(np.float64) @ query.astype(np.float64)
        different += not np.allclose(exact, np.sort(expected)[::-1], atol=1e-6)

    print(f"{args.rows:,} features of width {args.dim}, {args.k} nearest, {os.cpu_count()} threads")
    print(f"clipood  build {ours['build']:.2f} s  map {1e3 * ours['map']:.1f} ms  query {1e3 * ours['query']:.1f} ms")
    print(f"faiss    build {build:.2f} s  query {1e3 * statistics.median(seconds):.1f} ms")
    if different:
        print(f"{different} of {args.queries} queries found other rows", file=sys.stderr)
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())

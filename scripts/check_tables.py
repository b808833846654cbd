#!/usr/bin/env python3
"""Open the tables of a run the way notebooks do, and check that every reader sees the same thing.

    python scripts/check_tables.py runs/demo-0123456789ab store

Each table is opened with pandas and polars, and with DuckDB and Hugging Face datasets where they are installed. Checked:
columns and their order, equal row counts, dictionary columns as categoricals, score and feature types, the metadata of
every file, and that a table's directory holds nothing but Parquet. One line a table; exit code 1 if any check fails.

Needs: pip install pandas pyarrow polars   (and, to check them too: duckdb datasets)
"""

import argparse
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

try:
    import duckdb
except ImportError:
    duckdb = None
try:
    import datasets
except ImportError:
    datasets = None


@dataclass
class Table:
    """A table's columns, as documented; those that a row's place in the tree adds are hive keys."""

    name: str
    columns: list[str]
    categorical: set[str]
    hive: list[str] = field(default_factory=list)
    scores: bool = False
    features: bool = False


IMAGES = Table(
    "images",
    "image_key uri offset length content_hash split label class_name shard form".split(),
    {"split", "class_name", "form"},
    hive=["dataset"],
)
SCORES = Table(
    "scores",
    "image_key split role label class_name pred pred_name prob".split(),
    {"split", "role", "class_name", "pred_name"},
    hive=["prompt", "dataset"],
    scores=True,
)
OOD = Table(
    "ood",
    """prompt method shots seed id_dataset ood_dataset detector selection scaling hyperparameters views classes_hash
    weights_hash n_id n_ood n_excluded auroc aupr_in aupr_out fpr95 fpr95_openood aupr_in_openood aupr_out_openood threshold95
    detection_accuracy balanced_accuracy ties score_resolution auroc_lo auroc_hi fpr95_lo fpr95_hi notes""".split(),
    {
        *("prompt", "method", "id_dataset", "ood_dataset", "detector", "selection", "scaling"),
        *("hyperparameters", "classes_hash", "weights_hash", "notes"),
    },
)
ACCURACY = Table(
    "accuracy",
    "prompt method shots seed id_dataset n top1 top5 ece views classes_hash weights_hash".split(),
    {"prompt", "method", "id_dataset", "classes_hash", "weights_hash"},
)
SUMMARY = Table(
    "summary",
    """method shots id_dataset ood_dataset detector selection scaling seeds auroc auroc_std fpr95 fpr95_std
    fpr95_openood fpr95_openood_std aupr_in aupr_in_std aupr_out aupr_out_std top1 top1_std""".split(),
    {"method", "id_dataset", "ood_dataset", "detector", "selection", "scaling"},
)
PAIRED = Table(
    "paired",
    """prompt method shots seed baseline id_dataset ood_dataset detector auroc_diff auroc_diff_lo auroc_diff_hi
    auroc_larger fpr95_diff fpr95_diff_lo fpr95_diff_hi fpr95_smaller""".split(),
    {"prompt", "method", "baseline", "id_dataset", "ood_dataset", "detector"},
)
QUARANTINE = Table(
    "quarantine",
    "image_key uri stage error_kind message content_hash".split(),
    {"stage", "error_kind"},
)
GLOBAL = Table("global", "image_key view content_hash global".split(), set(), features=True)


class CheckError(Exception):
    """A table that is not as documented."""


def expect(what: str, found, expected) -> None:
    if found != expected:
        found, expected = (sorted(x) if isinstance(x, set) else x for x in (found, expected))
        raise CheckError(f"{what}: expected {expected}, found {found}")


def check_columns(reader: str, table: Table, names: list[str]) -> None:
    """Columns of the file in their order, then any hive keys; scores end in one column a detector."""
    names = [name for name in names if name not in table.hive]
    known = len(table.columns)
    expect(f"{reader}: columns", names[:known], table.columns)
    rest = names[known:]
    if table.scores:
        if not rest:
            raise CheckError(f"{reader}: no score column")
        rest = [name for name in rest if not name.startswith("score_")]
    expect(f"{reader}: further columns", rest, [])


def check_files(table: Table, path: Path) -> tuple[list[Path], int, int]:
    """Metadata and stored types of every file; returns the files, their rows and the width of features (0 for others)."""
    if not path.exists():
        raise CheckError(f"{path} does not exist")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    other = [str(p) for p in files if p.suffix != ".parquet"]
    expect("files that are not Parquet", other, [])
    if not files:
        raise CheckError(f"{path} holds no file")
    rows, widths = 0, set()
    for file in files:
        schema, footer = pq.read_schema(file), pq.read_metadata(file)
        metadata = {k.decode(): v.decode() for k, v in (footer.metadata or {}).items()}
        for key in ("clipood.schema_version", "clipood.fingerprint", "clipood.recipe", "clipood.rows"):
            if not metadata.get(key):
                raise CheckError(f"{file}: no metadata `{key}`")
        expect(f"{file}: metadata `clipood.rows`", int(metadata["clipood.rows"]), footer.num_rows)
        rows += footer.num_rows
        found = {f.name for f in schema if pa.types.is_dictionary(f.type)}
        expect(f"{file}: dictionary columns", found, table.categorical)
        if table.features:
            kind = schema.field("global").type
            expect(f"{file}: `global` a fixed-size list", pa.types.is_fixed_size_list(kind), True)
            expect(f"{file}: metadata `clipood.dim`", int(metadata["clipood.dim"]), kind.list_size)
            widths.add(kind.list_size)
    if len(widths) > 1:
        raise CheckError(f"{path}: parts of different widths {sorted(widths)}")
    return files, rows, widths.pop() if widths else 0


def with_pandas(table: Table, path: Path, width: int) -> int:
    frame = pd.read_parquet(path)
    check_columns("pandas", table, list(frame.columns))
    found = {n for n in frame.columns if isinstance(frame[n].dtype, pd.CategoricalDtype)}
    expect("pandas: categoricals", found - set(table.hive), table.categorical)
    for name in frame.columns:
        if table.scores and name.startswith("score_"):
            expect(f"pandas: type of {name}", str(frame[name].dtype), "float32")
    if table.scores:
        expect("pandas: unknown roles", set(frame["role"].unique()) - {"id", "ood"}, set())
    if table.features:
        expect("pandas: lengths of `global`", set(frame["global"].map(len)) - {width}, set())
    return len(frame)


def with_polars(table: Table, path: Path, width: int) -> int:
    frame = pl.read_parquet(path)
    check_columns("polars", table, frame.columns)
    found = {name for name, kind in frame.schema.items() if isinstance(kind, pl.Categorical)}
    expect("polars: categoricals", found - set(table.hive), table.categorical)
    for name, kind in frame.schema.items():
        if table.scores and name.startswith("score_"):
            expect(f"polars: type of {name}", kind, pl.Float32())
    if table.features:
        expect("polars: shape of `global`", frame["global"].to_numpy().shape, (len(frame), width))
    return len(frame)


def with_duckdb(table: Table, path: Path, width: int) -> int:
    place = str(path if path.is_file() else path / "**" / "*.parquet").replace("'", "''")
    source = f"read_parquet('{place}', hive_partitioning = true)"
    relation = duckdb.sql(f"SELECT * FROM {source}")
    check_columns("duckdb", table, relation.columns)
    if table.features:
        query = f"SELECT count(*) FROM {source} WHERE len(global) <> {width}"
        expect("duckdb: rows of another length", duckdb.sql(query).fetchall()[0][0], 0)
    return duckdb.sql(f"SELECT count(*) FROM {source}").fetchall()[0][0]


def with_datasets(table: Table, files: list[Path], width: int) -> int:
    with tempfile.TemporaryDirectory() as cache:
        names = [str(file) for file in files]
        data = datasets.load_dataset("parquet", data_files=names, split="train", cache_dir=cache)
        check_columns("datasets", table, data.column_names)
        if table.features:
            expect("datasets: length of `global`", data.features["global"].length, width)
        return len(data)


def check(table: Table, path: Path) -> str:
    """Opens one table with every reader; returns its line."""
    files, rows, width = check_files(table, path)
    counts = {
        "pandas": with_pandas(table, path, width),
        "polars": with_polars(table, path, width),
    }
    if duckdb is not None:
        counts["duckdb"] = with_duckdb(table, path, width)
    if datasets is not None and rows > 0:
        counts["datasets"] = with_datasets(table, files, width)
    for reader, count in counts.items():
        expect(f"{reader}: rows", count, rows)
    unread = " (not opened with datasets, which refuses a table without rows)" if datasets and not rows else ""
    return f"{rows} rows, {len(files)} files, the same in {', '.join(counts)}{unread}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("store", type=Path, help="store of features and prompts")
    args = parser.parse_args()
    tables = [
        (IMAGES, args.run / "images"),
        (SCORES, args.run / "scores"),
        (OOD, args.run / "metrics" / "ood.parquet"),
        (ACCURACY, args.run / "metrics" / "accuracy.parquet"),
        (SUMMARY, args.run / "metrics" / "summary.parquet"),
        (PAIRED, args.run / "metrics" / "paired.parquet"),
    ]
    validation = args.run / "validation"
    if validation.exists():
        tables.append((SCORES, validation))
    quarantine = args.run / "_run" / "quarantine"
    if quarantine.exists():
        tables.append((QUARANTINE, quarantine))
    features = sorted(args.store.glob("features/*/global"))
    tables += [(GLOBAL, path) for path in features]
    failed = 0
    for name, module in (("duckdb", duckdb), ("datasets", datasets)):
        if module is None:
            print(f"note  {name} is not installed, no table is opened with it")
    if not features:
        failed += 1
        print(f"FAIL  {args.store / 'features'}: no global feature table")
    for table, path in tables:
        try:
            print(f"ok    {path}: {check(table, path)}")
        except Exception as error:  # a reader that cannot open a table fails in its own way
            failed += 1
            print(f"FAIL  {path}: {type(error).__name__}: {error}")
    print(f"{failed} failed" if failed else "all tables are as documented")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

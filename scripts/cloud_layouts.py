"""The same 500 images in every layout and on every store, for scripts/test-cloud.sh.

`make IMAGES DIR` writes the layouts below DIR from the class folders below IMAGES, with the libraries that researchers write them
with. `upload DIR URL` copies them to a bucket or container. `manifests DIR ROOT` writes the manifests of these layouts at ROOT. `serve
DIR PORT` is an HTTP server that answers ranges and lists nothing. `same STORE STORE...` compares features by the content of
the images.
"""

import csv
import http.server
import io
import json
import os
import re
import sys
import tarfile
from pathlib import Path

COUNT = 500
SHARDS = 4


def chosen(images: Path) -> list[tuple[Path, int, str]]:
    """Path, label and class of 500 images, one class after the other in turns."""
    classes = sorted(p.name for p in images.iterdir() if p.is_dir())
    files = [sorted((images / name).iterdir()) for name in classes]
    turns = [(files[c][n], c, classes[c]) for n in range(max(map(len, files))) for c in range(len(classes)) if n < len(files[c])]
    assert len(turns) >= COUNT, f"{len(turns)} images below {images}"
    return turns[:COUNT]


def make(images: Path, to: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = chosen(images)
    classes = [name for _, name in sorted({(label, name) for _, label, name in rows})]
    names = [f"{name}/{path.name}" for path, _, name in rows]
    for (path, _, _), name in zip(rows, names):
        file = to / "files" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(path.read_bytes())
    (to / "classnames.txt").write_text("\n".join(classes) + "\n")
    # OpenOOD's lists have a blank behind some labels.
    (to / "list.txt").write_text("".join(f"files/{name} {label} \n" for name, (_, label, _) in zip(names, rows)))
    with open(to / "table.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["", "path", "label"])
        table.writerows([i, f"files/{name}", float(label)] for i, (name, (_, label, _)) in enumerate(zip(names, rows)))
    features = {"image": {"_type": "Image"}, "label": {"names": classes, "_type": "ClassLabel"}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    for shard in range(SHARDS):
        part = rows[shard::SHARDS]
        image = pa.array([{"bytes": p.read_bytes(), "path": p.name} for p, _, _ in part], type=kind)
        label = pa.array([label for _, label, _ in part], type=pa.int64())
        schema = pa.schema([("image", kind), ("label", pa.int64())])
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        table = pa.Table.from_arrays([image, label], schema=schema)
        pq.write_table(table, to / f"test-{shard:05d}-of-{SHARDS:05d}.parquet", row_group_size=50)
        with tarfile.open(to / f"test-{shard:04d}.tar", "w") as tar:
            for number, (path, label, _) in enumerate(part):
                for ending, data in [(path.suffix, path.read_bytes()), (".cls", str(label).encode())]:
                    info = tarfile.TarInfo(f"s{number:07d}{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))


LAYOUTS = {
    "image-folder": '[splits]\ntest = "files"\n',
    "imglist": 'files = "list.txt"\nclass_list = "classnames.txt"\n',
    "table": 'files = "table.csv"\nclass_list = "classnames.txt"\n',
    "parquet": f'files = "test-{{00000..{SHARDS - 1:05d}}}-of-{SHARDS:05d}.parquet"\n',
    "webdataset": f'files = "test-{{0000..{SHARDS - 1:04d}}}.tar"\nclass_list = "classnames.txt"\n',
}


def manifests(to: Path, root: str) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for layout, rest in LAYOUTS.items():
        text = f'name = "{layout}"\nrole = "id"\nlayout = "{layout}"\nroot = "{root}"\n{rest}'
        (to / f"{layout}.toml").write_text(text)


def upload(folder: Path, url: str) -> None:
    import cloud

    scheme, rest = url.split("://", 1)
    bucket, prefix = rest.split("/", 1)
    s3, container = (cloud.s3(), None) if scheme == "s3" else (None, cloud.azure().get_container_client(bucket))
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        key = f"{prefix}/{file.relative_to(folder).as_posix()}"
        if s3:
            s3.put_object(Bucket=bucket, Key=key, Body=file.read_bytes())
        else:
            container.upload_blob(key, file.read_bytes(), overwrite=True)


class Ranges(http.server.SimpleHTTPRequestHandler):
    """Files with ranges; a folder is not listed."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, body: bool):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            return self.send_error(404)
        data, status = path.read_bytes(), 200
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, size = 0, len(data)
        if wanted:
            start, end = int(wanted[1]), int(wanted[2] or size - 1)
            if start >= size:
                return self.send_error(416)
            data, status = data[start : end + 1], 206
        self.send_response(status)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{size}")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{path.stat().st_mtime_ns}"')
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        pass


def serve(folder: str, port: str) -> None:
    os.chdir(folder)
    http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Ranges).serve_forever()


def features(store: str) -> dict[str, list[float]]:
    import pyarrow.parquet as pq

    found = {}
    for part in sorted(Path(store).glob("features/*/global/*.parquet")):
        rows = pq.read_table(part, columns=["image_key", "content_hash", "global"]).to_pylist()
        # The out-of-distribution images are the same files in every run.
        own = (row for row in rows if row["image_key"].split("/")[0] in LAYOUTS)
        found.update((row["content_hash"], row["global"]) for row in own)
    return found


def same(first: str, *others: str) -> None:
    expected = features(first)
    assert len(expected) == COUNT, f"{first}: {len(expected)} images"
    for store in others:
        found = features(store)
        assert found.keys() == expected.keys(), f"{store}: other images than {first}"
        for content, vector in found.items():
            # The composition of a batch may change the last bits.
            worst = max(abs(a - b) for a, b in zip(vector, expected[content]))
            assert worst < 1e-5, f"{store}: image {content} differs from {first} by {worst}"
    print(f"{COUNT} images have the same features in {len(others) + 1} stores")


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command in ("make", "upload", "manifests"):
        folder, rest = Path(arguments[0]), arguments[1]
        {"make": lambda: make(folder, Path(rest)), "upload": lambda: upload(folder, rest), "manifests": lambda: manifests(folder, rest)}[command]()
    elif command == "serve":
        serve(*arguments)
    else:
        same(*arguments)

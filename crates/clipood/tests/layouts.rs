//! One set of images in every layout: the same features and labels; what becomes of files that are cut, changed or gone.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../clipood-data/tests/files/mod.rs"]
mod writers;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use arrow::array::AsArray;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use common::{CLASSES, TEST, World, files, refused, stderr, succeeds};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use writers::{Cifar, Column, write_parquet, write_tar};

const NAMES: &str = r#"{"info": {"features": {"label": {"names": ["fish", "house", "star", "tree"], "_type": "ClassLabel"}}}}"#;
const RECIPE: &str = "name = \"small\"\nmodel = \"demo\"\nmethods = [\"zero-shot\"]\ndetectors = [\"mcm\"]\n[data]\nid = \"id\"\nood = [\"scenes\"]\n";

/// An image: name of the file below `data/id/test`, bytes, label.
struct Image {
    name: String,
    bytes: Vec<u8>,
    label: i64,
}

/// The world with a recipe without training, and its test images.
fn world() -> (World, Vec<Image>) {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    let mut images = Vec::new();
    for (label, class) in (0..).zip(CLASSES) {
        for file in files(&world.path(&format!("data/id/test/{class}"))) {
            let name = format!("{class}/{file}");
            let bytes = std::fs::read(world.path(&format!("data/id/test/{name}"))).unwrap();
            images.push(Image { name, bytes, label });
        }
    }
    assert_eq!(images.len(), CLASSES.len() * TEST);
    (world, images)
}

fn manifest(world: &World, layout: &str, root: &str, rest: &str) {
    let text =
        format!("name = \"id\"\nrole = \"id\"\nlayout = \"{layout}\"\nroot = \"{root}\"\n{rest}");
    world.write("manifests/id.toml", text);
}

/// Writes the images as lists, tables, Parquet files and archives beside their folders, in an order of no meaning.
fn write_layouts(world: &World, images: &[Image]) {
    let mixed: Vec<&Image> = (0..images.len())
        .map(|i| &images[i * 7 % images.len()])
        .collect();
    let lines = mixed
        .iter()
        .map(|i| format!("test/{} {} \n", i.name, i.label));
    world.write("data/id/list.txt", lines.collect::<String>());
    let rows = mixed
        .iter()
        .map(|i| format!("0,test/{},{}.0\n", i.name, i.label));
    world.write(
        "data/id/table.csv",
        format!(",path,label\n{}", rows.collect::<String>()),
    );
    world.write("data/id/classnames.txt", CLASSES.join("\n"));
    for (shard, part) in mixed.chunks(mixed.len().div_ceil(2)).enumerate() {
        let bytes: Vec<_> = part.iter().map(|i| Some(i.bytes.clone())).collect();
        let labels: Vec<i64> = part.iter().map(|i| i.label).collect();
        let columns = [
            Column::Image("image", &bytes),
            Column::Numbers("label", &labels),
        ];
        write_parquet(
            &world.path(&format!("data/id/test-{shard}.parquet")),
            &columns,
            Some(NAMES),
        );
        let mut members: Vec<(String, Vec<u8>)> = Vec::new();
        for (number, image) in part.iter().enumerate() {
            members.push((format!("s{number:04}.png"), image.bytes.clone()));
            members.push((
                format!("s{number:04}.cls"),
                image.label.to_string().into_bytes(),
            ));
        }
        let members: Vec<_> = members
            .iter()
            .map(|(n, b)| (n.as_str(), b.as_slice()))
            .collect();
        write_tar(&world.path(&format!("data/id/test-{shard}.tar")), &members);
    }
}

/// Layout, and the rest of its manifest.
const LAYOUTS: [(&str, &str); 5] = [
    ("image-folder", "[splits]\ntest = \"test\"\n"),
    (
        "imglist",
        "files = \"list.txt\"\nclass_list = \"classnames.txt\"\n",
    ),
    (
        "table",
        "files = \"table.csv\"\nclass_list = \"classnames.txt\"\n",
    ),
    ("parquet", "files = \"test-{0..1}.parquet\"\n"),
    (
        "webdataset",
        "files = \"test-{0..1}.tar\"\nclass_list = \"classnames.txt\"\n",
    ),
];

/// The columns of some tables as text, row by row.
fn cells(folder: &Path, part: &str, columns: &[&str]) -> Vec<Vec<String>> {
    let bytes = Bytes::from(std::fs::read(folder.join(part)).unwrap());
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)
        .unwrap()
        .build()
        .unwrap()
    {
        let batch = batch.unwrap();
        let options = FormatOptions::default();
        let columns: Vec<_> = columns
            .iter()
            .map(|name| {
                ArrayFormatter::try_new(batch.column_by_name(name).unwrap(), &options).unwrap()
            })
            .collect();
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|c| c.value(row).to_string()).collect());
        }
    }
    rows
}

/// By content hash: label, class name and feature of every in-distribution image of a run.
fn features(world: &World, run: &str, store: &str) -> BTreeMap<String, (String, String, Vec<f32>)> {
    let mut known = BTreeMap::new();
    let images = world.path(&format!("{run}/images/dataset=id"));
    for part in files(&images) {
        for row in cells(&images, &part, &["content_hash", "label", "class_name"]) {
            known.insert(row[0].clone(), (row[1].clone(), row[2].clone()));
        }
    }
    let mut all = BTreeMap::new();
    let folder = world.path(&format!("{store}/features"));
    for part in files(&folder)
        .iter()
        .filter(|part| part.contains("/global/") && part.ends_with(".parquet"))
    {
        let bytes = Bytes::from(std::fs::read(folder.join(part)).unwrap());
        for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)
            .unwrap()
            .build()
            .unwrap()
        {
            let batch = batch.unwrap();
            let hashes = batch
                .column_by_name("content_hash")
                .unwrap()
                .as_string::<i32>()
                .clone();
            let vectors = batch
                .column_by_name("global")
                .unwrap()
                .as_fixed_size_list()
                .clone();
            for row in 0..batch.num_rows() {
                let vector =
                    arrow::compute::cast(&vectors.value(row), &arrow::datatypes::DataType::Float32)
                        .unwrap();
                let vector = vector
                    .as_primitive::<arrow::datatypes::Float32Type>()
                    .values()
                    .to_vec();
                if let Some((label, name)) = known.get(hashes.value(row)) {
                    all.insert(
                        hashes.value(row).to_string(),
                        (label.clone(), name.clone(), vector),
                    );
                }
            }
        }
    }
    assert_eq!(all.len(), known.len(), "{run}");
    all
}

fn assert_same(
    found: &BTreeMap<String, (String, String, Vec<f32>)>,
    expected: &BTreeMap<String, (String, String, Vec<f32>)>,
    layout: &str,
) {
    assert!(found.keys().eq(expected.keys()), "{layout}: other images");
    for (content, (label, name, vector)) in found {
        let (l, n, v) = &expected[content];
        assert_eq!((label, name), (l, n), "{layout}");
        let worst = vector
            .iter()
            .zip(v)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        assert!(worst < 1e-5, "{layout}: {worst}");
    }
}

#[test]
fn every_layout_gives_the_same_features_from_disk_and_over_http() {
    let (world, images) = world();
    write_layouts(&world, &images);
    let server = serve(&world.path("data/id"));
    let mut expected = None;
    for (place, root) in [("disk", "id"), ("http", server.as_str())] {
        for (layout, rest) in LAYOUTS {
            manifest(&world, layout, root, rest);
            let name = format!("{place}-{layout}");
            let store = format!("{name}-store");
            if name == "http-image-folder" {
                refused(
                    &world,
                    &name,
                    &["--store", &store],
                    2,
                    &["does not list its files", "imglist"],
                );
                continue;
            }
            succeeds(&world.run(&name, &["--store", &store]));
            let found = features(&world, &name, &store);
            let expected = expected.get_or_insert_with(|| found.clone());
            assert_same(&found, expected, &name);
            // A finished run is not begun again, whatever its images lie in.
            let again = world.run(&name, &["--store", &store]);
            succeeds(&again);
            assert!(!stderr(&again).contains("hashed"), "{}", stderr(&again));
            // The page of a search finds its images wherever they lie.
            let search = [
                "search",
                "a star",
                "--features",
                store.as_str(),
                "--dataset",
                "id",
                "--manifests",
                "manifests",
                "--top",
                "5",
                "--page",
                "sheet.html",
            ];
            succeeds(&world.clipood(&search).output().unwrap());
            let sheet = std::fs::read_to_string(world.path("sheet.html")).unwrap();
            assert_eq!(sheet.matches("src=\"data:image/jpeg").count(), 5, "{name}");
        }
    }
    let expected = expected.unwrap();
    assert_eq!(expected.len(), images.len());
}

#[test]
fn pixels_of_cifar_have_the_features_of_the_same_pixels_in_files() {
    let world = World::new();
    world.write("recipe.toml", RECIPE);
    let labels = [0, 1, 1, 0];
    world.write("data/cifar/test_batch.bin", Cifar::ten(&labels));
    world.write("data/cifar/data_batch_1.bin", Cifar::ten(&labels[..2]));
    world.write("data/cifar/batches.meta.txt", "fish\nhouse\n");
    for (image, label) in labels.iter().enumerate() {
        let mut file = b"P6\n32 32\n255\n".to_vec();
        file.extend(Cifar::pixels(image as u8, 1024));
        world.write(
            &format!("data/files/{}/{image}.ppm", CLASSES[usize::from(*label)]),
            file,
        );
    }
    manifest(&world, "image-folder", "files", "");
    succeeds(&world.run("files", &["--store", "files-store"]));
    manifest(&world, "cifar-binary", "cifar", "");
    succeeds(&world.run("cifar", &["--store", "cifar-store"]));
    let found = features(&world, "cifar", "cifar-store");
    assert_eq!(found.len(), 4);
    assert_same(
        &found,
        &features(&world, "files", "files-store"),
        "cifar-binary",
    );
}

#[test]
fn a_shard_that_changes_or_vanishes_after_the_plan_is_named() {
    let (world, images) = world();
    write_layouts(&world, &images);
    let tar = world.path("data/id/test-1.tar");
    manifest(&world, "webdataset", "id", LAYOUTS[4].1);
    let plan = [
        "plan",
        "recipe.toml",
        "--manifests",
        "manifests",
        "--run",
        "run",
    ];
    succeeds(&world.clipood(&plan).output().unwrap());
    // A new time alone is no change.
    let whole = std::fs::read(&tar).unwrap();
    let later = |seconds| {
        let time = std::time::SystemTime::now() + std::time::Duration::from_secs(seconds);
        std::fs::File::options()
            .write(true)
            .open(&tar)
            .unwrap()
            .set_modified(time)
            .unwrap();
    };
    later(5);
    succeeds(&world.clipood(&plan).output().unwrap());
    // Another image of the same size in its place.
    let mut changed = whole.clone();
    let middle = 512 + 200;
    changed[middle] ^= 1;
    std::fs::write(&tar, &changed).unwrap();
    later(9);
    refused(
        &world,
        "run",
        &[],
        2,
        &["1 of another content (test-1.tar)"],
    );
    refused(
        &world,
        "run",
        &["--accept-changed-data"],
        1,
        &["test-1.tar", "content hash"],
    );
    std::fs::write(&tar, &whole[..whole.len() / 2]).unwrap();
    refused(
        &world,
        "run",
        &[],
        2,
        &["1 of another size or content (test-1.tar)"],
    );
    std::fs::remove_file(&tar).unwrap();
    refused(&world, "run", &[], 2, &["no file `test-1.tar`"]);
    refused(
        &world,
        "run",
        &["--accept-changed-data"],
        1,
        &["test-1.tar"],
    );
    std::fs::write(&tar, &whole).unwrap();
    succeeds(&world.run("run", &[]));
    // The names of the classes belong to the data.
    world.write("data/id/classnames.txt", "fish\nhouse\nstar\nbush");
    refused(
        &world,
        "run",
        &[],
        2,
        &["1 of another size or content (classnames.txt)"],
    );
}

#[test]
fn an_image_without_bytes_is_quarantined_and_a_cut_archive_is_refused() {
    let (world, images) = world();
    let mut bytes: Vec<_> = images.iter().map(|i| Some(i.bytes.clone())).collect();
    bytes[5] = None;
    let labels: Vec<i64> = images.iter().map(|i| i.label).collect();
    let columns = [
        Column::Image("image", &bytes),
        Column::Numbers("label", &labels),
    ];
    write_parquet(&world.path("data/id/test-0.parquet"), &columns, Some(NAMES));
    manifest(&world, "parquet", "id", "files = \"test-0.parquet\"\n");
    let run = world.run("run", &[]);
    assert!(
        stderr(&run).contains("row 5 has no image bytes"),
        "{}",
        stderr(&run)
    );
    let counts = succeeds(&run);
    assert!(counts.contains("scored + 1 quarantined"), "{counts}");

    write_layouts(&world, &images);
    let tar = world.path("data/id/test-0.tar");
    let whole = std::fs::read(&tar).unwrap();
    std::fs::write(&tar, &whole[..512 + 100]).unwrap();
    manifest(&world, "webdataset", "id", LAYOUTS[4].1);
    refused(&world, "cut", &[], 2, &["test-0.tar: the archive is cut"]);
    assert!(!world.path("cut").exists());
    world.write(
        "data/id/list.txt",
        "test/fish/00.png 0\ntest/fish/01.png 1\ntest/fish/00.png 1\n",
    );
    manifest(&world, "imglist", "id", LAYOUTS[1].1);
    refused(
        &world,
        "twice",
        &[],
        2,
        &["id/test/test/fish/00.png is listed twice"],
    );
}

/// An HTTP server of a folder that answers ranges and lists nothing; its address.
fn serve(folder: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let folder = folder.to_path_buf();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || answer(&folder, &stream));
        }
    });
    address
}

fn answer(folder: &Path, mut stream: &TcpStream) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let request = lines.next()?.ok()?;
        let mut range = None;
        loop {
            let header = lines.next()?.ok()?.to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(found) = header.strip_prefix("range: bytes=") {
                let (start, end) = found.split_once('-')?;
                range = Some((start.parse::<usize>().ok()?, end.parse::<usize>().ok()?));
            }
        }
        let mut words = request.split(' ');
        let (method, path) = (words.next()?, words.next()?.trim_start_matches('/'));
        let Ok(bytes) = std::fs::read(folder.join(path)) else {
            stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                .ok()?;
            continue;
        };
        let size = bytes.len();
        let (status, from, body) = match range {
            None => ("200 OK", String::new(), &bytes[..]),
            Some((start, end)) => {
                let end = end.min(size - 1);
                let from = format!("Content-Range: bytes {start}-{end}/{size}\r\n");
                ("206 Partial Content", from, &bytes[start..=end])
            }
        };
        let tag = blake3::hash(&bytes).to_hex();
        let head = format!(
            "HTTP/1.1 {status}\r\n{from}Content-Length: {}\r\nETag: \"{}\"\r\n\r\n",
            body.len(),
            &tag[..16]
        );
        stream.write_all(head.as_bytes()).ok()?;
        if method == "GET" {
            stream.write_all(body).ok()?;
        }
    }
}

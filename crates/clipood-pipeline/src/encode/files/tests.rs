//! Files through the engine on the embedded model.

use std::sync::OnceLock;

use clipood_data::normalise;
use tempfile::TempDir;

use std::path::Path;

use super::*;
use crate::models::open_model;

fn model() -> &'static Model {
    static MODEL: OnceLock<Model> = OnceLock::new();
    MODEL.get_or_init(|| open_model("demo").unwrap())
}

/// A small image of one colour as a PPM file.
fn image(folder: &TempDir, number: usize) -> PathBuf {
    let path = folder.path().join(format!("{number}.ppm"));
    let mut bytes = b"P6 4 5 255\n".to_vec();
    let colour = [(number * 37 % 256) as u8, (number * 101 % 256) as u8, 9];
    bytes.extend(colour.repeat(20));
    std::fs::write(&path, bytes).unwrap();
    path
}

/// 11 files, of which some are missing, or no images.
fn files(folder: &TempDir) -> Vec<PathBuf> {
    let kind = |number: usize| match number {
        0 | 4 | 5 | 6 | 7 => folder.path().join(format!("absent-{number}.png")),
        9 => {
            let path = folder.path().join("text.png");
            std::fs::write(&path, "not an image").unwrap();
            path
        }
        _ => image(folder, number),
    };
    (0..11).map(kind).collect()
}

fn expected(path: &Path) -> Vec<f32> {
    let config = &model().config;
    let side = config.image.size as u32;
    let pixels = crate::encode::read_eval_view(path, side).unwrap();
    let encoder = model().image_encoder("cpu".parse().unwrap()).unwrap();
    let pixels = normalise(&pixels, config.mean, config.std);
    encoder.encode(pixels, false).unwrap().global
}

#[test]
fn outcomes_come_in_the_order_of_the_files() {
    let folder = TempDir::new().unwrap();
    let files = files(&folder);
    let dim = model().config.embed_dim;
    for (workers, full) in [(1, 32), (1, 1), (2, 2), (3, 4)] {
        let devices: Devices = format!("cpu:{workers}").parse().unwrap();
        let engine = Engine {
            full,
            ..Engine::for_files(model(), &devices)
        };
        let mut outcomes = Vec::new();
        encode_files(&engine, &files, |file, outcome| {
            assert_eq!(file, outcomes.len());
            outcomes.push(outcome);
            Ok(())
        })
        .unwrap();
        assert_eq!(outcomes.len(), files.len());
        for (path, outcome) in files.iter().zip(&outcomes) {
            let name = path.file_name().unwrap().to_string_lossy();
            match outcome {
                Ok(found) => {
                    assert!(name.ends_with(".ppm"), "{name}");
                    assert_eq!((found.global.len(), found.local.len()), (dim, 0));
                    let expected = expected(path);
                    let pairs = found.global.iter().zip(&expected);
                    assert!(pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-4));
                }
                Err(reason) if name.starts_with("absent") => assert_eq!(reason.kind, "unreadable"),
                Err(reason) => {
                    assert_eq!(name, "text.png");
                    assert!(!reason.message.is_empty());
                }
            }
        }
    }
}

#[test]
fn patch_features_are_made_when_asked_for() {
    let folder = TempDir::new().unwrap();
    let files = [image(&folder, 1), image(&folder, 2), image(&folder, 3)];
    let devices: Devices = "cpu:1".parse().unwrap();
    let engine = Engine {
        local: true,
        ..Engine::for_files(model(), &devices)
    };
    let config = &model().config;
    let mut seen = Vec::new();
    encode_files(&engine, &files, |_, outcome| {
        let found = outcome.unwrap();
        assert_eq!(
            found.local.len(),
            config.image.positions() * config.embed_dim
        );
        seen.push(found);
        Ok(())
    })
    .unwrap();
    assert_eq!(seen.len(), 3);
    assert_ne!(seen[0].local, seen[1].local);
}

#[test]
fn an_error_ends_it_and_no_file_is_no_error() {
    let folder = TempDir::new().unwrap();
    let devices: Devices = "cpu:2".parse().unwrap();
    let engine = Engine::for_files(model(), &devices).spread(3);
    assert_eq!(engine.full, 2);
    let files = files(&folder);
    let mut seen = 0;
    let end = encode_files(&engine, &files, |_, _| {
        seen += 1;
        match seen {
            5 => Err(PipelineError::Usage("enough".to_string())),
            _ => Ok(()),
        }
    });
    assert_eq!(
        (end.unwrap_err().to_string(), seen),
        ("enough".to_string(), 5)
    );
    encode_files(&engine, &[], |_, _| panic!("there is no file")).unwrap();
}

/// Far more files than may be in progress at once.
fn many_absent() -> Vec<PathBuf> {
    let path = |n| PathBuf::from(format!("absent/{n}.png"));
    (0..2000).map(path).collect()
}

#[test]
fn without_a_device_left_it_fails() {
    let folder = TempDir::new().unwrap();
    // The source waits for its first unit to be encoded.
    let files = [vec![image(&folder, 1)], many_absent()].concat();
    let devices = Devices {
        workers: vec![clipood_clip::model::Device::Cuda(99)],
        ..Devices::recorded("cuda", "f32").unwrap()
    };
    let engine = Engine {
        full: 4,
        reporting: Reporting::Silent,
        ..Engine::for_files(model(), &devices)
    };
    let end = encode_files(&engine, &files, |_, _| Ok(()));
    let message = end.unwrap_err().to_string();
    assert!(message.contains("cuda:99"), "{message}");
}

#[test]
fn many_files_come_in_order() {
    let files = many_absent();
    let devices: Devices = "sim:100000".parse().unwrap();
    let engine = Engine {
        full: 4,
        ..Engine::for_files(model(), &devices)
    };
    let mut next = 0;
    encode_files(&engine, &files, |file, outcome| {
        assert_eq!((file, outcome.is_err()), (next, true));
        next += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(next, files.len());
}

//! Files that `torch.save` wrote (`tests/data/torch/make.py`), in both of its formats.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use clipood_clip::checkpoint::torch_file::{read_state_dict, write_state_dict};
use clipood_clip::checkpoint::value::{Tensor, Value, Values};

fn data(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/torch")
        .join(file)
}

fn read(file: &str) -> Value<Tensor> {
    read_state_dict(&data(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// 0, 1, 2, ... divided by 8, minus 1.
fn ramp(shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    Tensor::floats(
        shape.to_vec(),
        (0..count).map(|i| i as f32 / 8.0 - 1.0).collect(),
    )
}

/// The elements of `ramp(&[6, 4])` at these row-major places.
fn picked(shape: &[usize], places: &[usize]) -> Tensor {
    let values = places.iter().map(|i| *i as f32 / 8.0 - 1.0).collect();
    Tensor::floats(shape.to_vec(), values)
}

fn tensor<'a>(value: &'a Value<Tensor>, name: &str) -> &'a Tensor {
    value
        .get(name)
        .and_then(Value::as_tensor)
        .unwrap_or_else(|| panic!("no tensor `{name}`"))
}

#[test]
fn checkpoints_of_coop_are_read() {
    for file in ["coop.pt", "coop.legacy.pt"] {
        let checkpoint = read(file);
        let state = checkpoint.get("state_dict").unwrap();
        assert_eq!(tensor(state, "ctx"), &ramp(&[4, 6]), "{file}");
        assert_eq!(tensor(state, "token_prefix"), &ramp(&[3, 1, 6]), "{file}");
        assert_eq!(tensor(state, "token_suffix"), &ramp(&[3, 2, 6]), "{file}");
        assert_eq!(checkpoint.get("epoch"), Some(&Value::Int(50)), "{file}");
        assert_eq!(checkpoint.get("val_result"), Some(&Value::None), "{file}");
        let scheduler = checkpoint.get("scheduler").unwrap();
        assert_eq!(scheduler.get("T_max"), Some(&Value::Int(50)), "{file}");
        let optimizer = checkpoint.get("optimizer").unwrap();
        let Value::Dict(momentum) = optimizer.get("state").unwrap() else {
            panic!("{file}: the optimizer has no state");
        };
        let buffer = tensor(&momentum[0].1, "momentum_buffer");
        assert_eq!(buffer.as_floats().unwrap(), [1.0; 24], "{file}");
    }
}

#[test]
fn every_type_and_view_is_read() {
    for file in ["views.pt", "views.legacy.pt"] {
        let views = read(file);
        // The ramp is exact in every type.
        for name in ["float16", "bfloat16", "float32", "float64"] {
            assert_eq!(tensor(&views, name), &ramp(&[2, 3]), "{file} {name}");
        }
        for name in ["int8", "uint8", "int16", "int32", "int64"] {
            let values = &tensor(&views, name).values;
            assert_eq!(values, &Values::Int(vec![0, 1, 100]), "{file} {name}");
        }
        let truths = &tensor(&views, "bool").values;
        assert_eq!(truths, &Values::Int(vec![0, 1, 1]), "{file} bool");
        let transposed: Vec<usize> = (0..24).map(|i| i % 6 * 4 + i / 6).collect();
        let columns: Vec<usize> = (0..12).map(|i| i / 2 * 4 + i % 2 * 2 + 1).collect();
        let rows: Vec<usize> = (8..16).collect();
        for (name, expected) in [
            ("base", ramp(&[6, 4])),
            ("transposed", picked(&[4, 6], &transposed)),
            ("rows", picked(&[2, 4], &rows)),
            ("columns", picked(&[6, 2], &columns)),
            ("scalar", Tensor::floats(vec![], vec![4.5])),
            ("empty", Tensor::floats(vec![0, 3], vec![])),
            ("parameter", ramp(&[3])),
        ] {
            assert_eq!(tensor(&views, name), &expected, "{file} {name}");
        }
        let ordered = views.get("ordered").unwrap();
        assert_eq!(tensor(ordered, "weight"), &ramp(&[1, 2]), "{file}");
        assert_eq!(tensor(ordered, "bias"), &ramp(&[1]), "{file}");
    }
}

#[test]
fn a_file_that_runs_a_command_is_refused_by_its_name() {
    let message = read_state_dict(&data("evil.pt")).unwrap_err().to_string();
    assert!(message.contains("evil.pt"), "{message}");
    assert!(message.contains("`posix.system`"), "{message}");
}

#[test]
fn both_formats_are_refused_when_cut_off() {
    for file in ["coop.pt", "coop.legacy.pt"] {
        let whole = std::fs::read(data(file)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.pt");
        for length in (0..whole.len()).step_by(7) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = read_state_dict(&path).unwrap_err().to_string();
            assert!(error.contains("cut.pt"), "{length} bytes: {error}");
        }
    }
}

#[test]
fn what_was_read_is_written_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("again.pt");
    for file in ["coop.pt", "views.legacy.pt"] {
        let value = read(file);
        write_state_dict(&path, &value).unwrap();
        assert_eq!(read_state_dict(&path).unwrap(), value, "{file}");
    }
}

//! One small model in every format: each file is opened to the same numbers, and these give the reference features.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::path::{Path, PathBuf};

use burn::backend::Flex;
use clipood_clip::checkpoint::OpenOptions;
use clipood_clip::checkpoint::torch_file::write_state_dict;
use clipood_clip::checkpoint::value::{Tensor, Value};
use clipood_clip::config::{Activation, ClipConfig};
use clipood_clip::model::Model;
use clipood_clip::text::{TextTransformer, cut};
use clipood_clip::weights::{WeightDtype, Weights, tensor_to_vec};
use common::{config, floats, hash_uniform, relative_difference};
use half::bf16;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use tempfile::TempDir;

const HUGGING_FACE: &str = "tiny-vit-hf/model.safetensors";
const OPEN_CLIP_BIN: &str = "tiny-vit.open_clip.bin";
const TORCHSCRIPT: &str = "tiny-vit.openai-jit.pt";
const SAFETENSORS: &str = "tiny-vit.openai-names.f16.safetensors";

/// Name, shape and values of each tensor.
type Tensors = Vec<(String, Vec<usize>, Vec<f32>)>;

/// The bytes of a file of `tests/data/checkpoints`, where weights are packed.
fn golden(file: &str) -> Vec<u8> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/checkpoints");
    let packed = data.join(format!("{file}.gz"));
    if !packed.is_file() {
        return std::fs::read(data.join(file)).unwrap();
    }
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// A folder with these golden files under these names.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (file, name) in files {
        std::fs::write(folder.path().join(name), golden(file)).unwrap();
    }
    folder
}

fn hugging_face() -> TempDir {
    folder(&[
        ("tiny-vit-hf/config.json", "config.json"),
        (HUGGING_FACE, "model.safetensors"),
    ])
}

fn open(path: &Path) -> Model {
    Model::open(path, &OpenOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn refusal(path: &Path) -> String {
    Model::open(path, &OpenOptions::default())
        .unwrap_err()
        .to_string()
}

/// The golden parameters under OpenAI's names.
fn weights() -> Weights {
    Weights::from_safetensors(&golden(SAFETENSORS), "golden").unwrap()
}

/// The model of the golden parameters; equal numbers and sizes have equal hashes.
fn reference() -> Model {
    Model::new(config("tiny-vit"), weights()).unwrap()
}

/// Writes these tensors as a safetensors file of one type.
fn write_safetensors(path: &Path, weights: &Weights, dtype: Dtype) {
    let raw: Vec<(String, Vec<usize>, Vec<u8>)> = weights
        .iter()
        .map(|(name, tensor)| {
            let bytes = match dtype {
                Dtype::BF16 => tensor
                    .data
                    .iter()
                    .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
                    .collect(),
                _ => tensor.data.iter().flat_map(|v| v.to_le_bytes()).collect(),
            };
            (name.clone(), tensor.shape.clone(), bytes)
        })
        .collect();
    let views: Vec<(&str, TensorView<'_>)> = raw
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(dtype, shape.clone(), bytes).unwrap();
            (name.as_str(), view)
        })
        .collect();
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The tensors as `torch.save` would write their state dict, with `prefix` before each name.
fn state_dict(weights: &Weights, prefix: &str) -> Value<Tensor> {
    weights
        .iter()
        .map(|(name, tensor)| {
            let value = Tensor::floats(tensor.shape.clone(), tensor.data.to_vec());
            (format!("{prefix}{name}"), Value::Tensor(value))
        })
        .collect()
}

#[test]
fn every_format_opens_to_the_same_numbers() {
    let expected = reference().hash;
    for file in [OPEN_CLIP_BIN, TORCHSCRIPT, SAFETENSORS] {
        let folder = folder(&[(file, file)]);
        assert_eq!(open(&folder.path().join(file)).hash, expected, "{file}");
    }
    let hugging_face = hugging_face();
    assert_eq!(open(hugging_face.path()).hash, expected, "folder");
    let alone = hugging_face.path().join("model.safetensors");
    assert_eq!(open(&alone).hash, expected, "Hugging Face's names alone");
    let open_clip = folder(&[(OPEN_CLIP_BIN, "open_clip_pytorch_model.bin")]);
    let json = config("tiny-vit").to_open_clip();
    std::fs::write(open_clip.path().join("open_clip_config.json"), json).unwrap();
    assert_eq!(open(open_clip.path()).hash, expected, "open_clip folder");
}

#[test]
fn features_are_the_references() {
    let bytes = golden("expected.safetensors");
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let side = reference().config.image.size;
    let pixels: Vec<f32> = hash_uniform("dev", "tiny-vit/image", 2 * 3 * side * side)
        .into_iter()
        .map(|v| 2.0 * v)
        .collect();
    let folder = folder(&[(TORCHSCRIPT, TORCHSCRIPT)]);
    let model = open(&folder.path().join(TORCHSCRIPT));
    let encoder = model.image_encoder("cpu".parse().unwrap()).unwrap();
    let found = encoder.encode(pixels, true).unwrap();
    for (name, found) in [("image_global", found.global), ("image_local", found.local)] {
        let off = relative_difference(&found, &floats(&expected, name));
        assert!(off < 1e-4, "{name}: relative difference {off}");
    }

    let tower = TextTransformer::<Flex>::load(&weights(), &config("tiny-vit"), &Default::default())
        .unwrap();
    let ids: Vec<u32> = expected
        .tensor("token_ids")
        .unwrap()
        .data()
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let text = tensor_to_vec(tower.encode(&cut(&ids, 77).unwrap()).unwrap());
    let off = relative_difference(&text, &floats(&expected, "text"));
    assert!(off < 1e-4, "text: relative difference {off}");
}

#[test]
fn types_of_files_change_nothing_but_their_rounding() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.safetensors");
    write_safetensors(&path, &weights(), Dtype::F32);
    assert_eq!(open(&path).hash, reference().hash, "float32");

    let mut rounded = Weights::new("rounded");
    for (name, tensor) in weights().iter() {
        let data = tensor.data.iter().map(|v| bf16::from_f32(*v).to_f32());
        rounded.insert(name.clone(), tensor.shape.clone(), data.collect());
    }
    let expected = Model::new(config("tiny-vit"), rounded).unwrap().hash;
    assert_ne!(expected, reference().hash);
    write_safetensors(&path, &weights(), Dtype::BF16);
    assert_eq!(open(&path).hash, expected, "bfloat16");
}

#[test]
fn parts_and_wrapped_state_dicts_are_read() {
    let bytes = golden(HUGGING_FACE);
    let all = Weights::from_safetensors(&bytes, "golden").unwrap();
    let folder = folder(&[("tiny-vit-hf/config.json", "config.json")]);
    let (mut parts, mut map) = ([Weights::new("0"), Weights::new("1")], Vec::new());
    for (number, (name, tensor)) in all.iter().enumerate() {
        parts[number % 2].insert(name.clone(), tensor.shape.clone(), tensor.data.to_vec());
        map.push(format!("\"{name}\": \"part-{}.safetensors\"", number % 2));
    }
    for (number, part) in parts.iter().enumerate() {
        let path = folder.path().join(format!("part-{number}.safetensors"));
        std::fs::write(path, part.to_safetensors(WeightDtype::F16).unwrap()).unwrap();
    }
    let index = folder.path().join("model.safetensors.index.json");
    let json = format!("{{\"weight_map\": {{{}}}}}", map.join(", "));
    std::fs::write(&index, &json).unwrap();
    let expected = reference().hash;
    assert_eq!(open(folder.path()).hash, expected, "parts");

    std::fs::write(&index, json.replace("part-0", "../part-0")).unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("`../part-0.safetensors`"), "{message}");

    std::fs::remove_file(&index).unwrap();
    let bin = folder.path().join("pytorch_model.bin");
    write_state_dict(&bin, &state_dict(&all, "")).unwrap();
    assert_eq!(open(folder.path()).hash, expected, "pytorch_model.bin");

    let wrapped = Value::from_iter([
        ("epoch".to_owned(), Value::Int(3)),
        ("state_dict".to_owned(), state_dict(&weights(), "module.")),
    ]);
    let path = folder.path().join("epoch_3.pt");
    write_state_dict(&path, &wrapped).unwrap();
    assert_eq!(open(&path).hash, expected, "a training program's file");
}

#[test]
fn what_is_assumed_is_said() {
    let folder = hugging_face();
    let file = folder.path().join("model.safetensors");
    let model = open(&file);
    assert_eq!(model.config.activation, Activation::QuickGelu);
    let [sizes, activation] = model.warnings() else {
        panic!("{:?}", model.warnings());
    };
    assert!(sizes.contains("64 wide"), "{sizes}");
    assert!(activation.contains("--activation gelu"), "{activation}");
    let options = OpenOptions {
        activation: Some(Activation::Gelu),
    };
    let model = Model::open(&file, &options).unwrap();
    assert_eq!(model.config.activation, Activation::Gelu);
    assert_eq!(model.warnings().len(), 1);

    assert_eq!(open(folder.path()).warnings().len(), 1);
    let json = r#"{"image_mean": [0.5, 0.5, 0.25], "image_std": [0.25, 0.5, 0.5], "size": 32, "crop_size": 32}"#;
    std::fs::write(folder.path().join("preprocessor_config.json"), json).unwrap();
    let model = open(folder.path());
    assert!(model.warnings().is_empty());
    assert_eq!(model.config.mean, [0.5, 0.5, 0.25]);
    assert_eq!(model.config.std, [0.25, 0.5, 0.5]);
}

#[test]
fn damaged_files_are_refused_with_their_path() {
    for file in [OPEN_CLIP_BIN, TORCHSCRIPT, SAFETENSORS] {
        let whole = golden(file);
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(file);
        for length in [0, 3, 8, 1000, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..length]).unwrap();
            let message = refusal(&path);
            assert!(message.contains(file), "{length} bytes: {message}");
        }
    }
    let folder = TempDir::new().unwrap();
    let message = refusal(folder.path());
    assert!(message.contains("open_clip_config.json"), "{message}");
    let message = refusal(&folder.path().join("absent.pt"));
    assert!(message.contains("absent.pt"), "{message}");
    let pointer = folder.path().join("pointer.safetensors");
    std::fs::write(&pointer, "version https://git-lfs.github.com/spec/v1\n").unwrap();
    let message = refusal(&pointer);
    assert!(message.contains("Git LFS"), "{message}");
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let folder = TempDir::new().unwrap();
    let config: ClipConfig = config("tiny-vit");
    let json = config.to_open_clip();
    std::fs::write(folder.path().join("open_clip_config.json"), json).unwrap();
    let path = folder.path().join("open_clip_model.safetensors");
    let write = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors: Tensors = weights()
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.shape.clone(), tensor.data.to_vec()))
            .collect();
        change(&mut tensors);
        let mut changed = Weights::new("changed");
        for (name, shape, data) in tensors {
            changed.insert(name, shape, data);
        }
        std::fs::write(&path, changed.to_safetensors(WeightDtype::F16).unwrap()).unwrap();
        refusal(folder.path())
    };
    let message = write(&|tensors| tensors.retain(|(name, _, _)| name != "visual.ln_post.bias"));
    assert!(
        message.contains("`visual.ln_post.bias` is missing"),
        "{message}"
    );

    let message = write(&|tensors| {
        tensors.push(("visual.neck.weight".to_owned(), vec![2], vec![0.0, 1.0]));
    });
    assert!(message.contains("(1: visual.neck.weight)"), "{message}");

    let message = write(&|tensors| {
        for (name, shape, _) in tensors {
            if name == "visual.proj" {
                shape.reverse();
            }
        }
    });
    assert!(message.contains("`visual.proj`"), "{message}");
    assert!(message.contains("[64, 128]"), "{message}");
    assert!(message.contains("[128, 64]"), "{message}");
}

/// Mean and deviation of a Hugging Face folder with these files beside it, and what is said about them.
fn preprocessing(files: &[(&str, &str)]) -> ([f32; 3], [f32; 3], Vec<String>) {
    let folder = hugging_face();
    for (name, json) in files {
        std::fs::write(folder.path().join(name), json).unwrap();
    }
    let model = open(folder.path());
    let warnings = model.warnings().to_vec();
    (model.config.mean, model.config.std, warnings)
}

/// What transformers 5 writes: `CLIPProcessor.save_pretrained` keeps the settings of both parts in one file.
const NESTED: &str = r#"{
  "image_processor": {
    "crop_size": {"height": 32, "width": 32}, "do_center_crop": true, "do_convert_rgb": true, "do_normalize": true,
    "do_rescale": true, "do_resize": true, "image_mean": [0.5, 0.25, 0.125],
    "image_processor_type": "CLIPImageProcessorFast", "image_std": [0.25, 0.5, 0.5], "resample": 3,
    "rescale_factor": 0.00392156862745098, "size": {"shortest_edge": 32}
  },
  "processor_class": "CLIPProcessor"
}"#;

#[test]
fn preprocessing_is_found_where_transformers_looks_for_it() {
    let (nested, alone) = ("processor_config.json", "preprocessor_config.json");
    let older = r#"{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
    let same = r#"{"image_mean": [0.5, 0.25, 0.125], "image_std": [0.25, 0.5, 0.5]}"#;
    let without = r#"{"processor_class": "CLIPProcessor"}"#;

    let (mean, std, warnings) = preprocessing(&[(nested, NESTED)]);
    assert_eq!((mean, std), ([0.5, 0.25, 0.125], [0.25, 0.5, 0.5]));
    assert!(warnings.is_empty(), "{warnings:?}");

    let (mean, _, warnings) = preprocessing(&[(nested, NESTED), (alone, older)]);
    assert_eq!(mean, [0.5, 0.25, 0.125], "the nested one counts");
    assert!(
        warnings[0].contains("differ: the first counts"),
        "{warnings:?}"
    );
    let (_, _, warnings) = preprocessing(&[(nested, NESTED), (alone, same)]);
    assert!(warnings.is_empty(), "{warnings:?}");

    let (mean, _, warnings) = preprocessing(&[(nested, without), (alone, older)]);
    assert_eq!(
        mean, [0.5; 3],
        "an older processor_config.json has no settings of images"
    );
    assert!(warnings.is_empty(), "{warnings:?}");

    let (mean, _, warnings) = preprocessing(&[(nested, without)]);
    assert_eq!(mean, clipood_clip::config::OPENAI_MEAN);
    assert!(warnings[0].contains("OpenAI's"), "{warnings:?}");

    let folder = hugging_face();
    for (json, word) in [
        (
            NESTED.replace("[0.25, 0.5, 0.5]", "[0.25, 1e-45, 0.5]"),
            "pixel deviation",
        ),
        (
            NESTED.replace("\"shortest_edge\": 32", "\"shortest_edge\": 40"),
            "40",
        ),
        ("{".to_owned(), "EOF"),
    ] {
        std::fs::write(folder.path().join(nested), json).unwrap();
        let message = refusal(folder.path());
        assert!(
            message.contains(nested) && message.contains(word),
            "{message}"
        );
    }
}

#[test]
fn marks_of_compiled_models_and_the_bias_of_siglips_loss_are_passed_over() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("epoch_3.pt");
    let expected = reference().hash;
    for prefix in ["_orig_mod.", "module._orig_mod.", "_orig_mod.module."] {
        write_state_dict(&path, &state_dict(&weights(), prefix)).unwrap();
        assert_eq!(open(&path).hash, expected, "{prefix}");
    }
    let mut biased = weights();
    biased.insert("logit_bias", vec![], vec![-10.0]);
    write_state_dict(&path, &state_dict(&biased, "module.")).unwrap();
    let model = open(&path);
    assert_eq!(model.hash, expected);
    let said = model.warnings().iter().any(|w| w.contains("`logit_bias`"));
    assert!(said, "{:?}", model.warnings());
}

#[test]
fn values_that_no_model_has_are_refused_by_tensor() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.safetensors");
    for (name, value, word) in [
        ("visual.proj", f32::NAN, "not finite at position 7"),
        (
            "token_embedding.weight",
            f32::INFINITY,
            "not finite at position 7",
        ),
        ("logit_scale", 1e38, "allowed: -10 to 10"),
        ("logit_scale", f32::NAN, "not finite"),
    ] {
        let mut changed = Weights::new("changed");
        for (found, tensor) in weights().iter() {
            let mut data = tensor.data.to_vec();
            if found == name {
                let place = data.len().min(8) - 1;
                data[place] = value;
            }
            changed.insert(found.clone(), tensor.shape.clone(), data);
        }
        write_safetensors(&path, &changed, Dtype::F32);
        let message = refusal(&path);
        assert!(message.contains(&format!("`{name}`")), "{message}");
        assert!(message.contains(word), "{message}");
    }
}

#[test]
fn configurations_of_impossible_sizes_are_refused_before_the_weights_are_read() {
    let folder = hugging_face();
    // The weights are damaged: a configuration that is out of range is refused without them.
    std::fs::write(folder.path().join("model.safetensors"), "no weights").unwrap();
    let json = String::from_utf8(golden("tiny-vit-hf/config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&json).unwrap();
    for (part, key, word) in [
        (
            "text_config",
            "num_hidden_layers",
            "text layers: found 1000000000000, allowed: 1 to 512",
        ),
        (
            "vision_config",
            "num_hidden_layers",
            "image layers: found 1000000000000",
        ),
        (
            "vision_config",
            "image_size",
            "image size: found 1000000000000",
        ),
        (
            "text_config",
            "max_position_embeddings",
            "text context length: found 1000000000000",
        ),
        (
            "text_config",
            "vocab_size",
            "text vocabulary: found 1000000000000",
        ),
        (
            "text_config",
            "num_attention_heads",
            "text heads: found 1000000000000",
        ),
    ] {
        let mut changed = config.clone();
        changed[part][key] = serde_json::json!(1_000_000_000_000u64);
        std::fs::write(folder.path().join("config.json"), changed.to_string()).unwrap();
        let message = refusal(folder.path());
        assert!(message.contains(word), "{key}: {message}");
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_instead_of_waited_for() {
    let folder = hugging_face();
    let config = folder.path().join("config.json");
    std::fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &config).unwrap();
    let chain = |path: &Path| {
        let error = Model::open(path, &OpenOptions::default()).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        format!("{error}: {source}")
    };
    let message = chain(folder.path());
    assert!(
        message.contains("config.json") && message.contains("a device"),
        "{message}"
    );
    let weights = folder.path().join("w.safetensors");
    std::os::unix::fs::symlink("/dev/zero", &weights).unwrap();
    let message = chain(&weights);
    assert!(
        message.contains("w.safetensors") && message.contains("a device"),
        "{message}"
    );
    let header = folder.path().join("h.safetensors");
    let mut long = (17u64 << 20).to_le_bytes().to_vec();
    long.resize(18 << 20, b' ');
    std::fs::write(&header, long).unwrap();
    let message = refusal(&header);
    assert!(
        message.contains("a header of 17825792 bytes, allowed: at most 16777216"),
        "{message}"
    );
}

//! A small benchmark of drawn pictures in a temporary folder, and the real command on it.
#![allow(dead_code, clippy::unwrap_used)]

pub mod tables;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use clipood_demo::{draw_planned, planned_pictures};
use tempfile::TempDir;

/// Classes of the in-distribution set.
pub const CLASSES: [&str; 4] = ["fish", "house", "star", "tree"];
/// Training images a class.
pub const TRAIN: usize = 4;
/// Test images a class.
pub const TEST: usize = 6;
/// Images of each out-of-distribution set.
pub const OOD: usize = 8;

/// The folder with everything a run needs.
pub struct World {
    dir: TempDir,
}

impl World {
    /// An empty folder.
    pub fn empty() -> Self {
        let dir = TempDir::new().unwrap();
        Self { dir }
    }

    /// Draws the images and writes manifests and a recipe.
    pub fn new() -> Self {
        let world = Self::empty();
        for class in CLASSES {
            for (split, count) in [("train", TRAIN), ("test", TEST)] {
                let folder = format!("id/{split}/{class}");
                world.draw(&format!("{folder}/"), &folder, count);
            }
        }
        world.draw("scenes/", "scenes/any", OOD);
        world.draw("textures/", "textures/any", OOD);
        world.write(
            "manifests/id.toml",
            "name = \"id\"\nrole = \"id\"\nlayout = \"image-folder\"\nroot = \"id\"\n[splits]\ntrain = \"train\"\ntest = \"test\"\n",
        );
        for name in ["scenes", "textures"] {
            let text = format!(
                "name = \"{name}\"\nrole = \"ood\"\nlayout = \"image-folder\"\nroot = \"{name}\"\n"
            );
            world.write(&format!("manifests/{name}.toml"), &text);
        }
        world.write("recipe.toml", RECIPE);
        world
    }

    /// Draws the first `count` of the demo's pictures whose path starts with `prefix` as `data/<to>/00.png` and on.
    pub fn draw(&self, prefix: &str, to: &str, count: usize) {
        let pictures = planned_pictures();
        let found = pictures.iter().filter(|p| p.path.starts_with(prefix));
        let mut drawn = 0;
        for planned in found.take(count) {
            let picture = draw_planned(planned).unwrap();
            let path = self.path(&format!("data/{to}/{drawn:02}.png"));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = std::fs::File::create(&path).unwrap();
            let mut encoder = png::Encoder::new(file, picture.width, picture.height);
            encoder.set_color(png::ColorType::Rgb);
            let mut writer = encoder.write_header().unwrap();
            writer.write_image_data(&picture.pixels).unwrap();
            drawn += 1;
        }
        assert_eq!(drawn, count, "{prefix}");
    }

    /// A path in the folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// Writes a file of the folder.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        let path = self.path(relative);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// `clipood run recipe.toml --run <run>` with more arguments, not started yet.
    pub fn command(&self, run: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clipood"));
        command
            .current_dir(self.dir.path())
            .args(["run", "recipe.toml", "--manifests", "manifests"])
            .args(["--run", run])
            .args(more);
        command
    }

    /// `clipood <words>` in the folder, not started yet.
    pub fn clipood(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clipood"));
        command.current_dir(self.dir.path()).args(words);
        command
    }

    /// Runs [`World::command`] to its end.
    pub fn run(&self, run: &str, more: &[&str]) -> Output {
        self.command(run, more).output().unwrap()
    }
}

/// Two methods, two shots, few epochs.
pub const RECIPE: &str = r#"
name = "small"
model = "demo"
methods = ["zero-shot", "locoop"]
shots = [2]
seeds = [1]
detectors = ["mcm", "gl_mcm"]

[data]
id = "id"
ood = ["scenes", "textures"]

[prompt]
n_ctx = 4

[train]
epochs = 3
views = 2

[engine]
shard_bytes = 20000

[metrics]
bootstrap = 20
"#;

/// `clipood run`, which has to fail with `code` and a message with all `words`.
pub fn refused(world: &World, run: &str, more: &[&str], code: i32, words: &[&str]) -> String {
    let output = world.run(run, more);
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{log}");
    for word in words {
        assert!(log.contains(word), "no `{word}` in: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
    log
}

/// `clipood <words>`, which has to fail with exit code 2 and a message with all `expected` words.
pub fn misused(world: &World, words: &[&str], expected: &[&str]) {
    let output = world.clipood(words).output().unwrap();
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{words:?}: {log}");
    for word in expected {
        assert!(log.contains(word), "{words:?}: no `{word}` in: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

/// Standard output of a command that has to succeed.
pub fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", stderr(output));
    stdout(output)
}

/// A JSON file of a run without its seal, as an earlier build would have written it.
pub fn unsealed(json: &str) -> Vec<u8> {
    let mut value: serde_json::Value = serde_json::from_str(json).unwrap();
    value.as_object_mut().unwrap().remove("seal").unwrap();
    serde_json::to_vec(&value).unwrap()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// All files below `folder`, relative, sorted.
pub fn files(folder: &Path) -> Vec<String> {
    fn walk(folder: &Path, root: &Path, all: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, root, all);
            } else {
                all.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    let mut all = Vec::new();
    walk(folder, folder, &mut all);
    all.sort();
    all
}

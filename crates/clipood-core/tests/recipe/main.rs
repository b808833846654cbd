//! Recipes: defaults, round trips, overrides, and common mistakes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod mistakes;

use clipood_core::{
    ClassToken, CoreError, Method, Overrides, Recipe, SubsampleClasses, TemplateSet,
};
use proptest::prelude::*;

/// Every key, each with a value that is not its default.
const FULL: &str = r#"# line 1
name = "full"
model = "openai/clip-vit-base-patch16"
methods = ["zero-shot", "sct", "coop"]
shots = [1, 16]
seeds = [1, 2, 3]
detectors = ["mcm", "cold=mcm:t=0.1"]

[data]
id = "imagenet"
ood = ["places", "sun"]
subsample_classes = "base"

[prompt]
templates = "simple"
n_ctx = 4
ctx_init = "a photo of a"
class_token = "middle"
class_specific = true

[train]
epochs = 7
lr = 0.01
momentum = 0.5
weight_decay = 1
warmup_lr = 0.0
batch_size = 8
views = 1
allow_fewer = true

[locoop]
lambda = 0.3
top_k = 12

[engine]
shard_bytes = 1024
max_quarantine_fraction = 0.5

[metrics]
bootstrap = 0
bootstrap_seed = 9

[linear_probe]
c = 2
max_iter = 50
"#;

const SHORT: &str = r#"name = "short"
model = "demo"
methods = ["zero-shot"]
detectors = ["mcm"]

[data]
id = "a"
ood = ["b"]
"#;

/// The form that `run.json` stores and that enters fingerprints.
fn to_json(recipe: &Recipe) -> String {
    serde_json::to_string(recipe).unwrap()
}

fn from_json(json: &str) -> serde_json::Result<Recipe> {
    serde_json::from_str(json)
}

fn message(toml: &str) -> String {
    Recipe::parse(toml, "r.toml").unwrap_err().to_string()
}

/// The error of FULL with `from` replaced by `to`, which must be there.
fn broken(from: &str, to: &str) -> String {
    assert!(FULL.contains(from), "{from}");
    message(&FULL.replacen(from, to, 1))
}

#[test]
fn every_key_is_read() {
    let recipe = Recipe::parse(FULL, "r.toml").unwrap();
    assert_eq!(
        recipe.methods,
        [Method::ZeroShot, Method::Sct, Method::Coop]
    );
    assert_eq!(
        (recipe.shots.as_slice(), recipe.seeds.len()),
        (&[1, 16][..], 3)
    );
    assert_eq!(recipe.data.subsample_classes, SubsampleClasses::Base);
    assert_eq!(recipe.prompt.ctx_init.as_deref(), Some("a photo of a"));
    assert_eq!(recipe.prompt.class_token, ClassToken::Middle);
    assert!(recipe.prompt.class_specific && recipe.train.allow_fewer);
    assert_eq!((recipe.train.lr, recipe.train.weight_decay), (0.01, 1.0));
    assert_eq!(recipe.train.epochs_for(Method::Sct), 7);
    assert_eq!(recipe.train.epochs_for(Method::ZeroShot), 0);
    assert_eq!(recipe.locoop.top_k_for(1000).unwrap(), 12);
    let probe = recipe.linear_probe.unwrap();
    assert_eq!((probe.c, probe.max_iter), (2.0, 50));
    assert_eq!(recipe.engine.shard_bytes, 1024);
    assert_eq!(
        (recipe.metrics.bootstrap, recipe.metrics.bootstrap_seed),
        (0, 9)
    );
}

#[test]
fn templates_are_a_named_set_or_a_list() {
    let parsed = |value: &str| {
        let text = FULL.replacen("\"simple\"", value, 1);
        let recipe = Recipe::parse(&text, "r.toml").unwrap();
        assert_eq!(from_json(&to_json(&recipe)).unwrap(), recipe);
        recipe.prompt.templates
    };
    assert_eq!(parsed("\"openai7\""), TemplateSet::Openai7);
    assert_eq!(parsed("\"openai80\"").templates().len(), 80);
    let own = parsed("[\"a {}\", \"a drawing of a {}.\"]");
    assert_eq!(own.templates(), ["a {}", "a drawing of a {}."]);
}

#[test]
fn a_short_recipe_gets_the_published_defaults() {
    let recipe = Recipe::parse(SHORT, "r.toml").unwrap();
    assert!(recipe.shots.is_empty() && recipe.seeds.is_empty());
    assert_eq!(recipe.data.subsample_classes, SubsampleClasses::All);
    let prompt = &recipe.prompt;
    assert_eq!((prompt.n_ctx, prompt.class_token), (16, ClassToken::End));
    assert_eq!(
        (prompt.ctx_init.as_deref(), prompt.class_specific),
        (None, false)
    );
    assert_eq!(prompt.templates, TemplateSet::Simple);
    assert_eq!(prompt.templates.templates(), ["a photo of a {}"]);
    let train = &recipe.train;
    assert_eq!((train.lr, train.momentum), (0.002, 0.9));
    assert_eq!((train.weight_decay, train.warmup_lr), (5e-4, 1e-5));
    assert_eq!(
        (train.batch_size, train.views, train.allow_fewer),
        (32, 8, false)
    );
    let epochs = Method::ALL.map(|method| train.epochs_for(method));
    assert_eq!(epochs, [0, 50, 50, 25, 50, 0, 20, 20, 20]);
    assert_eq!(recipe.locoop.lambda, 0.25);
    let probe = recipe.linear_probe.unwrap_or_default();
    assert_eq!((probe.c, probe.max_iter), (0.316, 1000));
    assert_eq!(recipe.engine.shard_bytes, 67_108_864);
    assert_eq!(recipe.engine.max_quarantine_fraction, 0.01);
    assert_eq!(
        (recipe.metrics.bootstrap, recipe.metrics.bootstrap_seed),
        (1000, 0)
    );
}

#[test]
fn top_k_is_a_fifth_of_the_classes_and_below_them() {
    let mut locoop = Recipe::parse(SHORT, "r.toml").unwrap().locoop;
    let found = [1000, 16, 5, 4, 2].map(|classes| locoop.top_k_for(classes).unwrap());
    assert_eq!(found, [200, 3, 1, 1, 1]);
    assert!(locoop.top_k_for(1).is_err());
    locoop.top_k = Some(16);
    let error = locoop.top_k_for(16).unwrap_err().to_string();
    assert_eq!(
        error,
        "recipe: key `locoop.top_k`: found 16, allowed: below the number of classes, 16"
    );
}

#[test]
fn a_recipe_without_a_linear_probe_section_is_stored_without_one() {
    let json = to_json(&Recipe::parse(SHORT, "r.toml").unwrap());
    assert!(!json.contains("linear_probe"), "{json}");
    let full = to_json(&Recipe::parse(FULL, "r.toml").unwrap());
    assert!(
        full.contains(r#""linear_probe":{"c":2.0,"max_iter":50}"#),
        "{full}"
    );
}

#[test]
fn the_section_of_negative_prompts_is_optional_and_checked() {
    let with = |section: &str| Recipe::parse(&format!("{SHORT}{section}"), "r.toml");
    let absent = with("").unwrap();
    assert!(!to_json(&absent).contains("negprompt"));
    let section = absent.negprompt.unwrap_or_default();
    assert_eq!((section.negatives, section.epochs), (2, 15));
    let given = with("[negprompt]\nnegatives = 3\nlr = 1\n").unwrap();
    let section = given.negprompt.unwrap();
    assert_eq!(
        (section.negatives, section.lr, section.lr_fall),
        (3, 1.0, 50)
    );
    assert_eq!(from_json(&to_json(&given)).unwrap(), given);
    for (line, expected) in [
        ("negatives = 0", "`negprompt.negatives`: found 0"),
        ("epochs = 0", "`negprompt.epochs`: found 0"),
        ("lr_fall = 0", "`negprompt.lr_fall`: found 0"),
        ("batch_size = 0", "`negprompt.batch_size`: found 0"),
        ("lr = 0", "`negprompt.lr`: found 0"),
        (
            "distance_weight = -1",
            "`negprompt.distance_weight`: found -1",
        ),
        (
            "diversity_weight = nan",
            "`negprompt.diversity_weight`: found NaN",
        ),
        ("negativs = 2", "did you mean `negatives`?"),
    ] {
        let error = with(&format!("[negprompt]\n{line}\n")).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn crops_are_needed_by_methods_that_train_a_prompt() {
    let mut recipe = Recipe::parse(FULL, "r.toml").unwrap();
    for (methods, views) in [
        (vec![Method::ZeroShot, Method::LinearProbe], 0),
        (vec![Method::LinearProbe, Method::Coop], 1),
        (vec![Method::Negprompt], 1),
    ] {
        recipe.methods = methods;
        assert_eq!(recipe.training_views(), views);
    }
}

#[test]
fn overrides_replace_and_are_checked() {
    let mut recipe = Recipe::parse(FULL, "r.toml").unwrap();
    recipe.train.allow_fewer = false;
    let before = recipe.clone();
    recipe.apply_overrides(&Overrides::default());
    assert_eq!(recipe, before);
    recipe.apply_overrides(&Overrides {
        model: Some("demo".to_string()),
        methods: Some(vec![Method::Locoop]),
        shots: Some(vec![2]),
        seeds: Some(vec![u64::MAX]),
        detectors: Some(vec!["energy".to_string()]),
        allow_fewer: true,
    });
    assert!(recipe.train.allow_fewer);
    // Views have 16-bit numbers, and with `views = 0` every epoch has its own.
    let mut long = recipe.clone();
    (long.train.views, long.train.epochs) = (0, Some(10_000));
    long.validate().unwrap();
    long.train.epochs = Some(10_001);
    let error = long.validate().unwrap_err().to_string();
    assert!(error.contains("`train.epochs`"), "{error}");
    recipe.validate().unwrap();
    assert_eq!(
        (recipe.model.as_str(), recipe.methods.as_slice()),
        ("demo", &[Method::Locoop][..])
    );
    assert_eq!(
        (recipe.shots.as_slice(), recipe.seeds.as_slice()),
        (&[2][..], &[u64::MAX][..])
    );
    assert_eq!(recipe.detectors, ["energy"]);
    assert_eq!(recipe.data, before.data);
    recipe.apply_overrides(&Overrides {
        shots: Some(vec![0]),
        ..Overrides::default()
    });
    let error = recipe.validate().unwrap_err().to_string();
    assert!(
        error.starts_with("recipe `full`: key `shots`: found 0"),
        "{error}"
    );
}

/// Any recipe that validation accepts, as far as the numbers go.
fn recipes() -> impl Strategy<Value = Recipe> {
    let rates = (
        1e-300..1e300f64,
        0.0..1.0f64,
        0.0..1e9f64,
        any::<u64>(),
        0.0..=1.0f64,
    );
    let choices = (
        any::<bool>(),
        prop::option::of(1usize..99),
        prop::option::of("[ -~]{0,9}x"),
    );
    (rates, choices, 1usize..=73).prop_map(|(rates, choices, n_ctx)| {
        let mut recipe = Recipe::parse(FULL, "r.toml").unwrap();
        (recipe.train.lr, recipe.train.momentum) = (rates.0, rates.1);
        (recipe.locoop.lambda, recipe.seeds) = (rates.2, vec![rates.3]);
        recipe.engine.max_quarantine_fraction = rates.4;
        (recipe.prompt.class_specific, recipe.locoop.top_k) = (choices.0, choices.1);
        (recipe.prompt.ctx_init, recipe.prompt.n_ctx) = (choices.2, n_ctx);
        recipe
    })
}

proptest! {
    #[test]
    fn json_comes_back_equal_to_the_bit(recipe in recipes()) {
        let json = to_json(&recipe);
        let back = from_json(&json).unwrap();
        prop_assert_eq!(&back, &recipe);
        prop_assert_eq!(to_json(&back), json);
        prop_assert_eq!(back.validate(), Ok(()));
    }

    #[test]
    fn mutated_text_never_panics_and_is_placed(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, "[ -~\\n\\[\\]=\"#.é\\x00]{0,4}"), 1..6),
    ) {
        let mut characters: Vec<char> = FULL.chars().collect();
        for (at, cut, insert) in edits {
            let start = at.index(characters.len() + 1);
            let end = (start + cut).min(characters.len());
            characters.splice(start..end, insert.chars());
        }
        let text: String = characters.into_iter().collect();
        match Recipe::parse(&text, "r.toml") {
            Ok(recipe) => prop_assert_eq!(recipe.validate(), Ok(())),
            Err(error) => prop_assert!(error.to_string().starts_with("r.toml"), "{}", error),
        }
    }
}

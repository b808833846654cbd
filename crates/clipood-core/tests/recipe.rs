//! Recipes: defaults, round trips, overrides, and common mistakes.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

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
fn unknown_keys_name_line_section_and_nearest() {
    let cases = [
        (
            "shots = [1",
            "shot = [1",
            "r.toml:5: unknown key `shot`; did you mean `shots`?",
        ),
        (
            "\nlr =",
            "\nlrr =",
            "r.toml:23: unknown key `lrr` in [train]; did you mean `lr`?",
        ),
        (
            "[locoop]",
            "[lokoop]",
            "r.toml:31: unknown key `lokoop`; did you mean `locoop`?",
        ),
        (
            "bootstrap = 0",
            "wombat = 0",
            "r.toml:40: unknown key `wombat` in [metrics]; valid: `bootstrap`, `bootstrap_seed`",
        ),
        (
            "max_iter",
            "max_itre",
            "r.toml:45: unknown key `max_itre` in [linear_probe]; did you mean `max_iter`?",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(broken(from, to), expected);
    }
    let nested = SHORT.to_string() + "train = { momentun = 0.1 }\n";
    let nested = nested.replace("[data]\n", "").replace("id =", "data.id =");
    let nested = nested.replace("ood =", "data.ood =");
    assert_eq!(
        message(&nested),
        "r.toml:8: unknown key `momentun` in [train]; did you mean `momentum`?"
    );
}

#[test]
fn missing_keys_are_named() {
    let lacking = |line: &str| {
        assert!(SHORT.contains(line));
        message(&SHORT.replace(line, ""))
    };
    let detectors = lacking("detectors = [\"mcm\"]\n");
    assert_eq!(detectors, "r.toml: missing key `detectors`");
    assert_eq!(
        lacking("id = \"a\"\n"),
        "r.toml:6: missing key `id` in [data]"
    );
    let error = Recipe::parse("", "r.toml").unwrap_err();
    assert!(matches!(error, CoreError::MissingKey { key, .. } if key == "name"));
}

#[test]
fn values_of_the_wrong_type_name_key_and_line() {
    let cases = [
        (
            "n_ctx = 4",
            "n_ctx = \"4\"",
            "r.toml:16: key `prompt.n_ctx`: invalid type: string \"4\", expected a whole number of at least 0",
        ),
        (
            "lr = 0.01",
            "lr = true",
            "r.toml:23: key `train.lr`: invalid type: boolean `true`, expected a number",
        ),
        (
            "batch_size = 8",
            "batch_size = -8",
            "r.toml:27: key `train.batch_size`: invalid value: integer `-8`, expected a whole number of at least 0",
        ),
        (
            "\"middle\"",
            "\"centre\"",
            "r.toml:18: key `prompt.class_token`: found `centre`; valid: `end`, `middle`, `front`",
        ),
        (
            "\"base\"",
            "\"bsae\"",
            "r.toml:12: key `data.subsample_classes`: found `bsae`; did you mean `base`? valid: `all`, `base`, `new`",
        ),
        (
            "\"sct\"",
            "\"dpstc\"",
            "r.toml:4: key `methods`: found `dpstc`; did you mean `dpsct`? valid: `zero-shot`, `coop`, `locoop`, `sct`, \
             `negprompt`, `linear-probe`, `dpcoop`, `dplocoop`, `dpsct`",
        ),
        (
            "\"simple\"",
            "\"openai8\"",
            "r.toml:15: key `prompt.templates`: found `openai8`; did you mean `openai7`? valid: `simple`, `openai7`, \
             `openai80`",
        ),
    ];
    for (from, to, expected) in cases {
        assert_eq!(broken(from, to), expected);
    }
}

#[test]
fn values_out_of_range_name_key_found_and_allowed() {
    let cases = [
        (
            "\"full\"",
            "\"../x\"",
            "r.toml:2: key `name`: found `../x`, allowed: letters",
        ),
        (
            "\"openai/clip-vit-base-patch16\"",
            "\" \"",
            "r.toml:3: key `model`: found an empty text",
        ),
        (
            "[\"zero-shot\", \"sct\", \"coop\"]",
            "[]",
            "r.toml:4: key `methods`: found an empty list",
        ),
        (
            "\"sct\"",
            "\"coop\"",
            "r.toml:4: key `methods`: found `coop` twice",
        ),
        (
            "[1, 16]",
            "[]",
            "r.toml:5: key `shots`: found none, but method `sct` trains",
        ),
        (
            "[1, 16]",
            "[1, 0]",
            "r.toml:5: key `shots`: found 0, allowed: at least 1",
        ),
        (
            "[1, 16]",
            "[4, 4]",
            "r.toml:5: key `shots`: found `4` twice",
        ),
        (
            "[1, 2, 3]",
            "[]",
            "r.toml:6: key `seeds`: found none, but method `sct` trains",
        ),
        (
            "[1, 2, 3]",
            "[1, 2, 1]",
            "r.toml:6: key `seeds`: found `1` twice",
        ),
        (
            "[\"mcm\", \"cold=mcm:t=0.1\"]",
            "[]",
            "r.toml:7: key `detectors`: found an empty list",
        ),
        (
            "\"simple\"",
            "[\"a {}\", \"b\"]",
            "r.toml:15: key `prompt.templates`: found `{}` 0 times in `b`, allowed: once",
        ),
        (
            "\"simple\"",
            "[]",
            "r.toml:15: key `prompt.templates`: found no template",
        ),
        (
            "\"cold=mcm:t=0.1\"",
            "\"\"",
            "r.toml:7: key `detectors`: found an empty text",
        ),
        (
            "\"cold=mcm:t=0.1\"",
            "\"mcm\"",
            "r.toml:7: key `detectors`: found `mcm` twice",
        ),
        (
            "\"imagenet\"",
            "\"image/net\"",
            "r.toml:10: key `data.id`: found `image/net`",
        ),
        (
            "[\"places\", \"sun\"]",
            "[]",
            "r.toml:11: key `data.ood`: found an empty list",
        ),
        (
            "\"sun\"",
            "\"places\"",
            "r.toml:11: key `data.ood`: found `places` twice",
        ),
        (
            "\"sun\"",
            "\"imagenet\"",
            "r.toml:11: key `data.ood`: found `imagenet`, which is data.id",
        ),
        (
            "n_ctx = 4",
            "n_ctx = 0",
            "r.toml:16: key `prompt.n_ctx`: found 0, allowed: 1 to 73",
        ),
        (
            "n_ctx = 4",
            "n_ctx = 74",
            "r.toml:16: key `prompt.n_ctx`: found 74, allowed: 1 to 73",
        ),
        (
            "\"a photo of a\"",
            "\"\"",
            "r.toml:17: key `prompt.ctx_init`: found an empty text",
        ),
        (
            "epochs = 7",
            "epochs = 0",
            "r.toml:22: key `train.epochs`: found 0",
        ),
        (
            "\nlr = 0.01",
            "\nlr = nan",
            "r.toml:23: key `train.lr`: found NaN, allowed: a finite number above 0",
        ),
        (
            "\nlr = 0.01",
            "\nlr = -0.01",
            "r.toml:23: key `train.lr`: found -0.01",
        ),
        (
            "\nlr = 0.01",
            "\nlr = inf",
            "r.toml:23: key `train.lr`: found inf",
        ),
        (
            "momentum = 0.5",
            "momentum = 1",
            "r.toml:24: key `train.momentum`: found 1",
        ),
        (
            "weight_decay = 1",
            "weight_decay = -1",
            "r.toml:25: key `train.weight_decay`: found -1",
        ),
        (
            "warmup_lr = 0.0",
            "warmup_lr = nan",
            "r.toml:26: key `train.warmup_lr`: found NaN",
        ),
        (
            "batch_size = 8",
            "batch_size = 0",
            "r.toml:27: key `train.batch_size`: found 0",
        ),
        (
            "views = 1",
            "views = 10001",
            "r.toml:28: key `train.views`: found 10001, allowed: 0 to 10000",
        ),
        (
            "lambda = 0.3",
            "lambda = -1",
            "r.toml:32: key `locoop.lambda`: found -1",
        ),
        (
            "top_k = 12",
            "top_k = 0",
            "r.toml:33: key `locoop.top_k`: found 0",
        ),
        (
            "shard_bytes = 1024",
            "shard_bytes = 0",
            "r.toml:36: key `engine.shard_bytes`: found 0",
        ),
        (
            "max_quarantine_fraction = 0.5",
            "max_quarantine_fraction = 1.5",
            "r.toml:37: key `engine.max_quarantine_fraction`: found 1.5, allowed: 0 to 1",
        ),
        (
            "\nc = 2",
            "\nc = 0",
            "r.toml:44: key `linear_probe.c`: found 0, allowed: a finite number above 0",
        ),
        (
            "\nc = 2",
            "\nc = inf",
            "r.toml:44: key `linear_probe.c`: found inf",
        ),
        (
            "max_iter = 50",
            "max_iter = 0",
            "r.toml:45: key `linear_probe.max_iter`: found 0, allowed: at least 1",
        ),
    ];
    for (from, to, expected) in cases {
        let found = broken(from, to);
        assert!(found.starts_with(expected), "{found}");
    }
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
fn a_default_that_conflicts_names_the_file_without_a_line() {
    let error = message(&SHORT.replace("zero-shot", "coop"));
    assert_eq!(
        error,
        "r.toml: key `shots`: found none, but method `coop` trains: name at least one"
    );
}

#[test]
fn text_that_is_not_toml_names_the_line() {
    assert!(broken("shots = [1, 16]", "shots = [1, 16").starts_with("r.toml:"));
    assert!(broken("seeds = [1, 2, 3]", "seeds = 1 2").starts_with("r.toml:6: "));
    let twice = broken("model =", "name =");
    assert!(twice.starts_with("r.toml:3: "), "{twice}");
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

#[test]
fn json_with_mistakes_is_rejected() {
    let json = to_json(&Recipe::parse(FULL, "r.toml").unwrap());
    let error = from_json(&json.replace("\"lambda\"", "\"lamda\"")).unwrap_err();
    assert!(error.to_string().starts_with("unknown field `lamda`"));
    let recipe = from_json(&json.replace("\"views\":1", "\"views\":99999")).unwrap();
    let error = recipe.validate().unwrap_err().to_string();
    assert!(
        error.starts_with("recipe `full`: key `train.views`"),
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

#[test]
fn absurd_amounts_are_refused_with_their_bounds() {
    let recipe = |section: &str| {
        let text = format!(
            "name = \"r\"\nmodel = \"demo\"\nmethods = [\"zero-shot\"]\ndetectors = [\"mcm\"]\n\
             [data]\nid = \"a\"\nood = [\"b\"]\n{section}\n"
        );
        Recipe::parse(&text, "r.toml")
    };
    for (section, key, most) in [
        ("metrics", "bootstrap", 1_000_000_u64),
        ("engine", "shard_bytes", 1 << 32),
        ("train", "epochs", 1_000_000),
        ("train", "batch_size", 1_000_000),
        ("linear_probe", "max_iter", 1_000_000),
        ("negprompt", "negatives", 1_000),
        ("negprompt", "epochs", 1_000_000),
    ] {
        let with = |value: u64| recipe(&format!("[{section}]\n{key} = {value}"));
        assert!(with(most).is_ok(), "{key}");
        for value in [most + 1, 1_000_000_000_000] {
            let error = with(value).unwrap_err().to_string();
            let expected = format!("key `{section}.{key}`: found {value}, allowed: at most {most}");
            assert!(error.contains(&expected), "{error}");
        }
    }
}

#[test]
fn files_of_shots_are_named_by_a_pattern() {
    let with = |pattern: &str, shots: &str| {
        let text = SHORT.replace("\"zero-shot\"", "\"coop\"").replace(
            "[data]",
            &format!("shots = {shots}\nseeds = [1, 2]\n[data]\nfew_shot = \"{pattern}\""),
        );
        Recipe::parse(&text, "r.toml").map_err(|e| e.to_string())
    };
    let recipe = with("x/shot_{shots}-seed_{seed}.pkl", "[16]").unwrap();
    let file = recipe.data.few_shot_file(16, 2);
    assert_eq!(file.as_deref(), Some("x/shot_16-seed_2.pkl"));
    assert!(with("shots.json", "[1, 16]").is_ok());
    let error = with("{shots}.pkl", "[1, 16]").unwrap_err();
    assert!(
        error.contains("`data.few_shot`") && error.contains("--shots"),
        "{error}"
    );
    let error = with("{seeds}.pkl", "[1]").unwrap_err();
    assert!(
        error.contains("{shots} and") || error.contains("{seed} and"),
        "{error}"
    );
    assert!(with(" ", "[1]").is_err());
    // A recipe without the key has the fingerprint that it had.
    assert!(!to_json(&Recipe::parse(SHORT, "r.toml").unwrap()).contains("few_shot"));
}

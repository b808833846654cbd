//! Mistakes in recipes, each named by key, found and allowed.

use super::*;

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

//! Checks of the values of a recipe.

use std::collections::BTreeSet;
use std::fmt::Display;

use super::sections::SUPERCLASS;
use super::{PublishedSection, Recipe, SelectSection, WordListSection};
use crate::document::Problem;
use crate::manifest::check_name;

/// Upper bounds of what a recipe may ask for: far above any use, so that a slip of the keyboard fails at once instead of
/// running for years or filling the memory.
const MOST_EPOCHS: u64 = 1_000_000;
const MOST_BATCH: u64 = 1_000_000;
const MOST_STEPS: u64 = 1_000_000;
const MOST_NEGATIVES: u64 = 1000;
const MOST_RESAMPLES: u64 = 1_000_000;
const MOST_SHARD_BYTES: u64 = 1 << 32;

impl Recipe {
    /// Returns the first mistake, in the order of the keys in the documentation.
    pub(super) fn check(&self) -> Result<(), Problem> {
        check_name("name", &self.name)?;
        not_blank("model", &self.model)?;
        not_empty("methods", &self.methods)?;
        distinct("methods", &self.methods)?;
        self.check_shots_and_seeds()?;
        not_empty("detectors", &self.detectors)?;
        for detector in &self.detectors {
            not_blank("detectors", detector)?;
        }
        distinct("detectors", &self.detectors)?;
        self.check_data()?;
        self.check_prompt()?;
        self.check_train()?;
        non_negative("locoop.lambda", self.locoop.lambda)?;
        if self.locoop.top_k == Some(0) {
            return Err(at_least_one("locoop.top_k"));
        }
        self.check_linear_probe()?;
        self.check_negprompt()?;
        let beta = self.dual_pattern.beta;
        if !(-1.0..=0.0).contains(&beta) {
            let text = format!("found {beta}, allowed: -1 to 0");
            return Err(Problem::new("dual_pattern.beta", text));
        }
        self.check_select()?;
        self.check_negative_labels()?;
        if let Some(streams) = &self.streams {
            not_empty("streams.orders", &streams.orders)?;
            distinct("streams.orders", &streams.orders)?;
        }
        if self.engine.shard_bytes == 0 {
            return Err(at_least_one("engine.shard_bytes"));
        }
        at_most(
            "engine.shard_bytes",
            self.engine.shard_bytes,
            MOST_SHARD_BYTES,
        )?;
        at_most(
            "metrics.bootstrap",
            self.metrics.bootstrap as u64,
            MOST_RESAMPLES,
        )?;
        if self.engine.checkpoint_steps == 0 {
            return Err(at_least_one("engine.checkpoint_steps"));
        }
        let fraction = self.engine.max_quarantine_fraction;
        if !(0.0..=1.0).contains(&fraction) {
            let text = format!("found {fraction}, allowed: 0 to 1");
            return Err(Problem::new("engine.max_quarantine_fraction", text));
        }
        self.published.iter().try_for_each(PublishedSection::check)
    }

    fn check_shots_and_seeds(&self) -> Result<(), Problem> {
        if let Some(method) = self.methods.iter().find(|method| method.uses_shots()) {
            let empty = |key: &str| {
                let text = format!("found none, but method `{method}` trains: name at least one");
                Problem::new(key, text)
            };
            if self.shots.is_empty() {
                return Err(empty("shots"));
            }
            if self.seeds.is_empty() {
                return Err(empty("seeds"));
            }
        }
        if self.shots.contains(&0) {
            let text = "found 0, allowed: at least 1 (method `zero-shot` needs no shots)";
            return Err(Problem::new("shots", text));
        }
        distinct("shots", &self.shots)?;
        distinct("seeds", &self.seeds)
    }

    fn check_data(&self) -> Result<(), Problem> {
        let data = &self.data;
        check_name("data.id", &data.id)?;
        not_empty("data.ood", &data.ood)?;
        for name in &data.ood {
            check_name("data.ood", name)?;
        }
        distinct("data.ood", &data.ood)?;
        if data.ood.contains(&data.id) {
            let text = format!(
                "found `{}`, which is data.id: a dataset has one role",
                data.id
            );
            return Err(Problem::new("data.ood", text));
        }
        for name in &data.validation_ood {
            check_name("data.validation_ood", name)?;
            if *name == data.id || data.ood.contains(name) {
                let text = format!("found `{name}`, which is a test set: select on other images");
                return Err(Problem::new("data.validation_ood", text));
            }
        }
        distinct("data.validation_ood", &data.validation_ood)?;
        if data.validation_per_class == 0 && !data.validation_ood.is_empty() {
            return Err(at_least_one("data.validation_per_class"));
        }
        self.check_few_shot()?;
        for (group, members) in &data.groups {
            let key = format!("data.groups.{group}");
            check_name(&key, group)?;
            not_empty(&key, members)?;
            distinct(&key, members)?;
            if let Some(other) = members.iter().find(|name| !data.ood.contains(name)) {
                let text = format!("found `{other}`, allowed: the datasets of data.ood");
                return Err(Problem::new(&key, text));
            }
        }
        Ok(())
    }

    fn check_few_shot(&self) -> Result<(), Problem> {
        const KEY: &str = "data.few_shot";
        let Some(pattern) = &self.data.few_shot else {
            return Ok(());
        };
        not_blank(KEY, pattern)?;
        let rest = pattern.replace("{seed}", "").replace("{shots}", "");
        if rest.contains(['{', '}']) {
            let text = format!("found `{pattern}`, allowed in braces: {{seed}} and {{shots}}");
            return Err(Problem::new(KEY, text));
        }
        if pattern.contains("{shots}") && self.shots.len() > 1 {
            let text = format!(
                "found {{shots}} with {} numbers of shots, allowed: one, because the shots of such files are no part of each \
                 other; run the recipe once for each number (--shots)",
                self.shots.len()
            );
            return Err(Problem::new(KEY, text));
        }
        Ok(())
    }

    fn check_select(&self) -> Result<(), Problem> {
        for (i, select) in self.select.iter().enumerate() {
            if !self.detectors.contains(&select.detector) {
                let text = format!(
                    "found `{}`, which is not among `detectors`: add it there, for the rows without selection",
                    select.detector
                );
                return Err(Problem::new("select.detector", text));
            }
            not_blank("select.parameter", &select.parameter)?;
            not_empty("select.values", &select.values)?;
            if let Some(value) = select.values.iter().find(|value| !value.is_finite()) {
                let text = format!("found {value}, allowed: finite numbers");
                return Err(Problem::new("select.values", text));
            }
            let texts: Vec<String> = select.values.iter().map(f64::to_string).collect();
            distinct("select.values", &texts)?;
            let same = |other: &&SelectSection| {
                other.detector == select.detector && other.parameter == select.parameter
            };
            if self.select[..i].iter().find(same).is_some() {
                let text = format!(
                    "found `{}` and its `{}` twice, allowed: once",
                    select.detector, select.parameter
                );
                return Err(Problem::new("select", text));
            }
        }
        Ok(())
    }

    fn check_linear_probe(&self) -> Result<(), Problem> {
        let Some(section) = &self.linear_probe else {
            return Ok(());
        };
        positive("linear_probe.c", section.c)?;
        if section.max_iter == 0 {
            return Err(at_least_one("linear_probe.max_iter"));
        }
        at_most("linear_probe.max_iter", section.max_iter as u64, MOST_STEPS)
    }

    fn check_negprompt(&self) -> Result<(), Problem> {
        let Some(section) = &self.negprompt else {
            return Ok(());
        };
        for (key, value, most) in [
            ("negatives", section.negatives, MOST_NEGATIVES),
            ("epochs", section.epochs, MOST_EPOCHS),
            ("lr_fall", section.lr_fall, MOST_STEPS),
            ("batch_size", section.batch_size, MOST_BATCH),
        ] {
            let key = format!("negprompt.{key}");
            if value == 0 {
                return Err(at_least_one(&key));
            }
            at_most(&key, value as u64, most)?;
        }
        non_negative("negprompt.distance_weight", section.distance_weight)?;
        non_negative("negprompt.diversity_weight", section.diversity_weight)?;
        positive("negprompt.lr", section.lr)
    }

    fn check_negative_labels(&self) -> Result<(), Problem> {
        let Some(section) = &self.negative_labels else {
            return Ok(());
        };
        for list in &section.lists {
            check_list("negative_labels.lists", list)?;
        }
        for list in &section.imagined {
            check_list("negative_labels.imagined", list)?;
        }
        if section.count == Some(0) {
            return Err(at_least_one("negative_labels.count"));
        }
        let template = section.inter_modal_template();
        if template.matches("{}").count() != 1 {
            let text = format!("found `{template}`, allowed: a text with one {{}}");
            return Err(Problem::new("negative_labels.class_template", text));
        }
        for (key, share) in [("quantile", section.quantile), ("keep", section.keep)] {
            if !(0.0..=1.0).contains(&share) {
                let text = format!("found {share}, allowed: 0 to 1");
                return Err(Problem::new(format!("negative_labels.{key}"), text));
            }
        }
        if let Some(limit) = section.exclude_above
            && !(-1.0..=1.0).contains(&limit)
        {
            let text = format!("found {limit}, allowed: -1 to 1");
            return Err(Problem::new("negative_labels.exclude_above", text));
        }
        not_empty("negative_labels.unknown", &section.unknown)?;
        let blank = section.unknown.iter().find(|text| text.trim().is_empty());
        blank.map_or(Ok(()), |text| not_blank("negative_labels.unknown", text))
    }

    fn check_prompt(&self) -> Result<(), Problem> {
        if let Some(text) = self.prompt.templates.problem() {
            return Err(Problem::new("prompt.templates", text));
        }
        if !(1..=73).contains(&self.prompt.n_ctx) {
            let text = format!("found {}, allowed: 1 to 73", self.prompt.n_ctx);
            return Err(Problem::new("prompt.n_ctx", text));
        }
        match &self.prompt.ctx_init {
            Some(words) => not_blank("prompt.ctx_init", words),
            None => Ok(()),
        }
    }

    fn check_train(&self) -> Result<(), Problem> {
        let train = &self.train;
        if train.epochs == Some(0) {
            return Err(at_least_one("train.epochs"));
        }
        at_most(
            "train.epochs",
            train.epochs.unwrap_or(0) as u64,
            MOST_EPOCHS,
        )?;
        positive("train.lr", train.lr)?;
        if !(0.0..1.0).contains(&train.momentum) {
            let text = format!("found {}, allowed: 0 to below 1", train.momentum);
            return Err(Problem::new("train.momentum", text));
        }
        non_negative("train.weight_decay", train.weight_decay)?;
        non_negative("train.warmup_lr", train.warmup_lr)?;
        if train.batch_size == 0 {
            return Err(at_least_one("train.batch_size"));
        }
        at_most("train.batch_size", train.batch_size as u64, MOST_BATCH)?;
        if train.views > 10_000 {
            let text = format!("found {}, allowed: 0 to 10000", train.views);
            return Err(Problem::new("train.views", text));
        }
        if let Some(epochs) = train.epochs
            && train.views == 0
            && epochs > 10_000
        {
            let text = format!("found {epochs}, allowed with train.views = 0: 1 to 10000");
            return Err(Problem::new("train.epochs", text));
        }
        let [low, high] = train.crop_scale;
        if !(low > 0.0 && low <= high && high <= 1.0) {
            let text =
                format!("found [{low}, {high}], allowed: two shares above 0, up to 1, in order");
            return Err(Problem::new("train.crop_scale", text));
        }
        Ok(())
    }
}

fn check_list(key: &str, list: &WordListSection) -> Result<(), Problem> {
    check_name(&format!("{key}.words"), &list.words)?;
    let template = &list.template;
    if template.matches("{}").count() != 1 {
        let text = format!("found `{template}`, allowed: a text with one {{}}");
        return Err(Problem::new(format!("{key}.template"), text));
    }
    let expected = usize::from(!list.superclasses.is_empty());
    if template.matches(SUPERCLASS).count() != expected {
        let text = format!(
            "found `{template}`, allowed: a text with {SUPERCLASS} once if superclasses are given, and without it if not"
        );
        return Err(Problem::new(format!("{key}.template"), text));
    }
    for superclass in &list.superclasses {
        not_blank(&format!("{key}.superclasses"), superclass)?;
    }
    distinct(&format!("{key}.superclasses"), &list.superclasses)
}

fn at_least_one(key: &str) -> Problem {
    Problem::new(key, "found 0, allowed: at least 1")
}

fn at_most(key: &str, value: u64, most: u64) -> Result<(), Problem> {
    if value <= most {
        return Ok(());
    }
    let text = format!("found {value}, allowed: at most {most}");
    Err(Problem::new(key, text))
}

fn positive(key: &str, value: f64) -> Result<(), Problem> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    let text = format!("found {value}, allowed: a finite number above 0");
    Err(Problem::new(key, text))
}

fn non_negative(key: &str, value: f64) -> Result<(), Problem> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    let text = format!("found {value}, allowed: a finite number of at least 0");
    Err(Problem::new(key, text))
}

fn not_blank(key: &str, text: &str) -> Result<(), Problem> {
    if text.trim().is_empty() {
        return Err(Problem::new(key, "found an empty text, allowed: any other"));
    }
    Ok(())
}

fn not_empty<T>(key: &str, items: &[T]) -> Result<(), Problem> {
    if items.is_empty() {
        return Err(Problem::new(
            key,
            "found an empty list, allowed: one entry or more",
        ));
    }
    Ok(())
}

fn distinct<T: Ord + Display>(key: &str, items: &[T]) -> Result<(), Problem> {
    let mut seen = BTreeSet::new();
    match items.iter().find(|item| !seen.insert(*item)) {
        Some(twice) => Err(Problem::new(
            key,
            format!("found `{twice}` twice, allowed: once"),
        )),
        None => Ok(()),
    }
}

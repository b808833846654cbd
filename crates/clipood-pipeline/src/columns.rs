//! The score columns of a run: the recipe's detectors, the candidate values of its hyperparameters, and the two
//! components of the dual-pattern score. Every part of a run has all columns, so that readers can open the directory as
//! one table.

use clipood_core::{Method, NegativeRule, Recipe, SelectSection};
use clipood_ood::{DetectorSpec, Negatives};

use crate::error::{PipelineError, Result};

/// Column of the dual-pattern base score: MCM or GL-MCM at the dual-pattern repository's temperature.
pub const DUAL_BASE: &str = "dual_pattern_base";
/// Column of the negative smallest divergence from a class pattern.
pub const DUAL_NEG_MIN_KL: &str = "dual_pattern_neg_min_kl";

/// Purpose of a score column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnPurpose {
    /// A detector of the recipe, with a row in the tables of metrics.
    Listed,
    /// A candidate value of a hyperparameter, which has no row in the tables of metrics.
    Candidate,
    /// A component of the dual-pattern score, which has no row in the tables of metrics.
    DualHalf,
}

/// One score column.
#[derive(Debug, Clone)]
pub struct ScoreColumn {
    /// Name after `score_`.
    pub name: String,
    /// Its purpose.
    pub purpose: ColumnPurpose,
    rule: Rule,
}

/// The detector of a column under each method.
#[derive(Debug, Clone)]
enum Rule {
    /// The same for every prompt set that has its inputs, one of which may be the set's own negative prompts.
    Detector { spec: DetectorSpec, learned: bool },
    /// The base of a dual-pattern method.
    DualBase,
    /// The divergence of a dual-pattern method.
    DualNegMinKl,
}

impl ScoreColumn {
    fn detector(spec: DetectorSpec, purpose: ColumnPurpose, rule: NegativeRule) -> Self {
        let learned = reads_learned(&spec, rule);
        Self {
            name: spec.name(),
            purpose,
            rule: Rule::Detector { spec, learned },
        }
    }

    /// What prompt sets of `method` lack for the detector of the column, in words; `None` if nothing.
    pub fn lack(&self, method: Method) -> Option<&'static str> {
        let Rule::Detector { spec, learned } = &self.rule else {
            return None;
        };
        let needs = spec.needs();
        if needs.texts && !method.has_texts() {
            return Some("has no texts to compare with");
        }
        // Zero-shot prompts have no probe of the same shots to be joined with.
        if needs.classifiers && !method.uses_shots() {
            return Some("has no shots to learn from");
        }
        (*learned && !method.has_negatives()).then_some("has no learned negative prompts")
    }

    /// The detector of the column for prompt sets of `method`; with `None` the column holds nulls.
    ///
    /// # Errors
    /// None for the specifications of this file.
    pub fn spec(&self, method: Method) -> Result<Option<DetectorSpec>> {
        let text = match &self.rule {
            Rule::Detector { spec, .. } => {
                return Ok(self.lack(method).is_none().then(|| spec.clone()));
            }
            Rule::DualBase => match method {
                Method::Dpcoop => "mcm:t=0.1",
                Method::Dplocoop | Method::Dpsct => "gl_mcm:t=0.1:weight=0.5",
                Method::ZeroShot
                | Method::Coop
                | Method::Locoop
                | Method::Sct
                | Method::Negprompt
                | Method::LinearProbe => return Ok(None),
            },
            Rule::DualNegMinKl if method.is_dual_pattern() => "dpm_neg_min_kl:t=0.1",
            Rule::DualNegMinKl => return Ok(None),
        };
        Ok(Some(text.parse()?))
    }
}

/// Whether a detector reads the negative prompts that were learned with the class texts.
pub fn reads_learned(spec: &DetectorSpec, rule: NegativeRule) -> bool {
    match spec.needs().negatives {
        Some(Negatives::Learned) => true,
        Some(Negatives::Mined) => rule == NegativeRule::Learned,
        Some(
            Negatives::Unknown | Negatives::InterModal | Negatives::Imagined | Negatives::Words,
        )
        | None => false,
    }
}

/// A parameter of a detector and the columns of its candidate values.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// Name of the detector in the tables, the same as in its `fixed` rows.
    pub detector: String,
    /// For each value the text that the tables print (`t=0.5`) and the name of its column.
    pub values: Vec<(String, String)>,
}

/// The methods whose classifiers a detector may join with that of a prompt set.
const MEMBERS: [Method; 2] = [Method::ZeroShot, Method::LinearProbe];

/// The columns of a recipe, in the order of the score table, and the hyperparameters to choose with their candidate
/// columns.
///
/// # Errors
/// A detector that cannot be read, two of one name, a parameter or value that a detector does not take; a method that
/// none of the detectors is defined for; a detector that joins classifiers of methods that are not listed.
pub fn score_columns(recipe: &Recipe) -> Result<(Vec<ScoreColumn>, Vec<Candidates>)> {
    columns_of(recipe, false)
}

/// The same for the stream tables.
///
/// # Errors
/// As [`score_columns`].
pub fn stream_columns(recipe: &Recipe) -> Result<(Vec<ScoreColumn>, Vec<Candidates>)> {
    columns_of(recipe, true)
}

fn columns_of(recipe: &Recipe, stream_table: bool) -> Result<(Vec<ScoreColumn>, Vec<Candidates>)> {
    let usage =
        |problem: String| PipelineError::Usage(format!("recipe `{}`: {problem}", recipe.name));
    let parse = |text: &str| {
        text.parse::<DetectorSpec>()
            .map_err(|e| usage(e.to_string()))
    };
    let rule = recipe.negative_labels.as_ref().map(|section| section.rule);
    let rule = rule.unwrap_or_default();
    let mut columns: Vec<ScoreColumn> = Vec::new();
    for text in &recipe.detectors {
        let spec = parse(text)?;
        if spec.needs().stream && reads_learned(&spec, rule) {
            return Err(usage(format!(
                "detector `{spec}` learns from a stream, which begins with words: negative_labels.rule = \"learned\" is for \
                 detectors of single images"
            )));
        }
        if spec.needs().classifiers
            && let Some(lacking) = MEMBERS.iter().find(|m| !recipe.methods.contains(m))
        {
            return Err(usage(format!(
                "detector `{spec}` joins classifiers of several methods; add `{lacking}` to `methods`"
            )));
        }
        let column = ScoreColumn::detector(spec, ColumnPurpose::Listed, rule);
        let name = &column.name;
        if columns.iter().any(|other| other.name == *name) {
            return Err(PipelineError::Usage(format!(
                "detector `{name}` is listed twice; give one an alias (`other={name}`)"
            )));
        }
        if [DUAL_BASE, DUAL_NEG_MIN_KL].contains(&name.as_str()) {
            return Err(usage(format!(
                "detector `{name}`: the dual-pattern score has that column; give another alias"
            )));
        }
        columns.push(column);
    }
    for method in &recipe.methods {
        let mut defined = 0;
        for column in &columns {
            defined += usize::from(column.spec(*method)?.is_some());
        }
        if defined == 0 {
            let names: Vec<String> = columns.iter().map(|c| format!("`{}`", c.name)).collect();
            let lack = columns.first().and_then(|column| column.lack(*method));
            if let Some(lack) = lack.filter(|_| method.has_texts()) {
                return Err(usage(format!(
                    "method `{method}` {lack}, and none of the detectors is defined for it ({}); add one that is, such as `mcm`",
                    names.join(", ")
                )));
            }
            return Err(usage(format!(
                "method `{method}` has no texts, and the detectors are all about texts ({}); add one that reads logits or \
                 image features, such as `msp`, `max_logit`, `energy` or `knn`",
                names.join(", ")
            )));
        }
    }
    let is_stream = |column: &ScoreColumn| match &column.rule {
        Rule::Detector { spec, .. } => spec.needs().stream,
        Rule::DualBase | Rule::DualNegMinKl => false,
    };
    let (streams, mut columns): (Vec<ScoreColumn>, Vec<ScoreColumn>) =
        columns.into_iter().partition(is_stream);
    let mut of_streams = (streams, Vec::new());
    let mut selections = Vec::new();
    for select in &recipe.select {
        let candidates = candidates(select, &parse)?;
        let streams = parse(&select.detector)?.needs().stream;
        let (columns, selections) = match streams {
            true => (&mut of_streams.0, &mut of_streams.1),
            false => (&mut columns, &mut selections),
        };
        let mut values = Vec::new();
        for (label, spec) in candidates {
            let column = ScoreColumn::detector(spec, ColumnPurpose::Candidate, rule);
            values.push((label, column.name.clone()));
            if !columns.iter().any(|other| other.name == column.name) {
                columns.push(column);
            }
        }
        selections.push(Candidates {
            detector: parse(&select.detector)?.name(),
            values,
        });
    }
    if recipe.methods.iter().any(|m| m.is_dual_pattern()) {
        for (name, rule) in [
            (DUAL_BASE, Rule::DualBase),
            (DUAL_NEG_MIN_KL, Rule::DualNegMinKl),
        ] {
            columns.push(ScoreColumn {
                name: name.to_string(),
                purpose: ColumnPurpose::DualHalf,
                rule,
            });
        }
    }
    Ok(match stream_table {
        true => of_streams,
        false => (columns, selections),
    })
}

/// Each value as the tables print it, with its detector. Candidates have no alias, because their name contains the
/// value.
fn candidates(
    select: &SelectSection,
    parse: &impl Fn(&str) -> Result<DetectorSpec>,
) -> Result<Vec<(String, DetectorSpec)>> {
    let kind = parse(&select.detector)?.without_alias();
    let with = |value: f64| format!("{}={value}", select.parameter);
    let values = select.values.iter();
    values
        .map(|value| Ok((with(*value), parse(&format!("{kind}:{}", with(*value)))?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(more: &str) -> Recipe {
        let text = format!(
            "name = \"r\"\nmodel = \"demo\"\nmethods = [\"zero-shot\", \"dpcoop\"]\nshots = [1]\nseeds = [1]\n\
             detectors = [\"mcm\", \"local=gl_mcm:weight=0.5\"]\n[data]\nid = \"a\"\nood = [\"b\"]\n{more}"
        );
        Recipe::parse(&text, "r.toml").unwrap()
    }

    fn select(detector: &str, parameter: &str, values: &str) -> String {
        format!(
            "[[select]]\ndetector = \"{detector}\"\nparameter = \"{parameter}\"\nvalues = {values}\n"
        )
    }

    #[test]
    fn candidates_share_columns_with_listed_detectors() {
        let more = select("mcm", "t", "[0.5, 1]") + &select("local=gl_mcm:weight=0.5", "t", "[2]");
        let (columns, selections) = score_columns(&recipe(&more)).unwrap();
        let names: Vec<&str> = columns.iter().map(|c| c.name.as_str()).collect();
        let expected = [
            "mcm",
            "local",
            "mcm:t=0.5",
            "gl_mcm:t=2:weight=0.5",
            DUAL_BASE,
            DUAL_NEG_MIN_KL,
        ];
        assert_eq!(names, expected);
        let pair = |a: &str, b: &str| (a.to_string(), b.to_string());
        assert_eq!(
            selections[0].values,
            [pair("t=0.5", "mcm:t=0.5"), pair("t=1", "mcm")]
        );
        assert_eq!(selections[1].detector, "local");
    }

    #[test]
    fn dual_columns_are_defined_for_dual_methods_only() {
        let (columns, _) = score_columns(&recipe("")).unwrap();
        let base = &columns[2];
        assert_eq!(base.spec(Method::ZeroShot).unwrap(), None);
        assert_eq!(base.spec(Method::Coop).unwrap(), None);
        let spec = base.spec(Method::Dpcoop).unwrap().unwrap();
        assert_eq!(spec.to_string(), "mcm:t=0.1");
        let spec = base.spec(Method::Dpsct).unwrap().unwrap();
        assert_eq!(spec.to_string(), "gl_mcm:t=0.1:weight=0.5");
    }

    #[test]
    fn a_linear_probe_has_the_columns_that_need_no_texts() {
        let text = "name = \"r\"\nmodel = \"demo\"\nmethods = [\"zero-shot\", \"linear-probe\"]\nshots = [1]\nseeds = [1]\n\
                    detectors = [DETECTORS]\n[data]\nid = \"a\"\nood = [\"b\"]\n";
        let columns = |detectors: &str| {
            let text = text.replace("DETECTORS", detectors);
            score_columns(&Recipe::parse(&text, "r.toml").unwrap())
        };
        let (all, _) = columns("\"mcm\", \"cold=gl_mcm\", \"msp\", \"knn\"").unwrap();
        let defined = |method: Method| -> Vec<bool> {
            let specs = all.iter().map(|c| c.spec(method).unwrap());
            specs.map(|spec| spec.is_some()).collect()
        };
        assert_eq!(defined(Method::ZeroShot), [true; 4]);
        assert_eq!(defined(Method::LinearProbe), [false, false, true, true]);
        let error = columns("\"mcm\", \"cold=gl_mcm\"").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let error = error.to_string();
        for word in ["`linear-probe`", "(`mcm`, `cold`)", "`msp`"] {
            assert!(error.contains(word), "no {word} in: {error}");
        }
    }

    #[test]
    fn learned_negatives_are_read_where_a_method_has_them() {
        let columns = |methods: &str, detectors: &str, more: &str| {
            let text = format!(
                "name = \"r\"\nmodel = \"demo\"\nmethods = [{methods}]\nshots = [1]\nseeds = [1]\n\
                 detectors = [{detectors}]\n[data]\nid = \"a\"\nood = [\"b\"]\n{more}"
            );
            score_columns(&Recipe::parse(&text, "r.toml").unwrap())
        };
        let methods = "\"zero-shot\", \"negprompt\"";
        let learned = "[negative_labels]\nrule = \"learned\"\n";
        let detectors = "\"mcm\", \"negprompt\", \"neglabel\", \"unknown_prompt\"";
        for (more, zero_shot) in [
            ("", [true, false, true, true]),
            (learned, [true, false, false, true]),
        ] {
            let (all, _) = columns(methods, detectors, more).unwrap();
            let defined = |method: Method| -> Vec<bool> {
                let lacks = all.iter().map(|column| column.lack(method));
                lacks.map(|lack| lack.is_none()).collect()
            };
            assert_eq!(defined(Method::ZeroShot), zero_shot);
            assert_eq!(defined(Method::Negprompt), [true; 4]);
        }
        let error = columns(methods, "\"negprompt\"", "").unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let error = error.to_string();
        for word in ["`zero-shot`", "no learned negative prompts", "`mcm`"] {
            assert!(error.contains(word), "no {word} in: {error}");
        }
        let error = columns(methods, "\"mcm\", \"adaneg\"", learned).unwrap_err();
        assert!(error.to_string().contains("`adaneg`"), "{error}");
    }

    #[test]
    fn wrong_parameters_are_named() {
        let error = |more: &str| score_columns(&recipe(more)).unwrap_err().to_string();
        assert!(error(&select("mcm", "tau", "[1]")).contains("tau"));
        assert!(error(&select("mcm", "t", "[0]")).contains('t'));
        // The detector sets the parameter already.
        assert!(error(&select("local=gl_mcm:weight=0.5", "weight", "[1]")).contains("weight"));
    }
}

//! The page docs/DETECTORS.md, made from the registry.

use std::fmt::Write;

use clipood_ood::{DetectorInfo, Negatives, registry};

const HEAD: &str = "# Detectors

Made from the detectors' entries by `make detectors-page`; a test compares it. A higher score means more in-distribution.

Notation: `f` image feature of unit length, `c` its cosines to the class texts, `s = 100 c` the logits, `p = softmax(s)`; with a linear
probe `s` are its logits. A recipe or `clipood score --detectors` names a detector as `[alias=]kind[:key=value]...`.

- **Inductive**: the score of an image depends on nothing but the image and what the detector was fitted on.
- **Transductive**: the detector scores a stream of test images and learns from them, so the score of an image depends on the
  other images, their order and the batch size. Runs score each pair of ID and OOD set in several seeded orders (`[streams]
  orders`), with an empty memory each, and tables mark such rows `transductive`. Compare them with each other only.
- Picking a parameter for each test set is selection on the test set: `[[select]]` does it under the name `oracle`, and
  `validation` picks on images that are not tested.
";

/// The page.
pub fn page() -> String {
    let mut text = HEAD.to_string();
    let group = |text: &mut String, title: &str, streams: bool| {
        let own = || registry().iter().filter(|i| i.needs.stream == streams);
        // Writing to a string cannot fail.
        let _ = writeln!(text, "\n## {title}\n");
        let _ = writeln!(text, "| kind | summary | needs |\n| --- | --- | --- |");
        for info in own() {
            let _ = writeln!(
                text,
                "| [`{0}`](#{0}) | {1} | {2} |",
                info.kind,
                cell(info.summary),
                needs(info)
            );
        }
        for info in own() {
            section(text, info);
        }
    };
    group(&mut text, "Inductive", false);
    group(&mut text, "Transductive", true);
    text
}

fn section(text: &mut String, info: &DetectorInfo) {
    let _ = writeln!(text, "\n### {}\n", info.kind);
    let _ = writeln!(text, "`{}`\n", info.formula);
    let _ = writeln!(text, "- Paper: {}", info.paper);
    let _ = writeln!(text, "- Needs: {}", needs(info));
    let _ = writeln!(text, "- Cost per image: {}", info.cost);
    let _ = writeln!(text, "- Trap: {}", info.trap);
    if info.parameters.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\n| parameter | default | meaning |\n| --- | --- | --- |"
    );
    for parameter in info.parameters {
        let _ = writeln!(
            text,
            "| `{}` | `{}` | {} |",
            parameter.key,
            parameter.default,
            cell(parameter.summary)
        );
    }
}

/// Text in a cell of a table, where a bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// What a kind needs with default parameters, in words.
fn needs(info: &DetectorInfo) -> String {
    let needs = info.needs;
    let mut words = Vec::new();
    if needs.texts {
        words.push("class texts");
    }
    words.extend(needs.negatives.map(|negatives| match negatives {
        Negatives::Mined => "negative labels",
        Negatives::Unknown => "prompts for the unknown",
        Negatives::InterModal => "inter-modal negative labels (shots)",
        Negatives::Imagined => "names of imagined outliers",
        Negatives::Words => "all words of the lists",
        Negatives::Learned => "learned negative prompts (method `negprompt`)",
    }));
    for (needed, word) in [
        (needs.shots, "shots"),
        (needs.labels, "their classes"),
        (needs.patches, "patch features"),
        (
            needs.classifiers,
            "the methods `zero-shot` and `linear-probe`",
        ),
        (needs.noise, "noise images"),
        (needs.stream, "a stream of test images"),
    ] {
        if needed {
            words.push(word);
        }
    }
    match words.is_empty() {
        true => "logits only".to_string(),
        false => words.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_the_documentation_is_that_of_the_registry() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/DETECTORS.md");
        let found = std::fs::read_to_string(path).unwrap();
        assert!(
            found == page(),
            "docs/DETECTORS.md is not that of the detectors; `make detectors-page` writes it"
        );
    }
}

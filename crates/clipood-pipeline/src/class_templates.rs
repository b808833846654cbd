//! The class texts that words are compared with when negative labels are mined, as an input of fingerprints.

use clipood_core::{FingerprintBuilder, Recipe};
use clipood_ood::Negatives;

use crate::columns::ScoreColumn;
use crate::error::Result;

/// Field of fingerprints: the templates of these texts.
pub const CLASS_TEMPLATES: &str = "negative_class_templates";

/// Adds the templates to the fingerprint of something that depends on mined labels, if a detector of the recipe uses any.
///
/// # Errors
/// A detector that does not fit a method.
pub fn with_class_templates(
    recipe: &Recipe,
    columns: &[ScoreColumn],
    builder: FingerprintBuilder,
) -> Result<FingerprintBuilder> {
    let Some(templates) = own_class_templates(recipe) else {
        return Ok(builder);
    };
    for column in columns {
        for method in &recipe.methods {
            let needs = column
                .spec(*method)?
                .and_then(|spec| spec.needs().negatives);
            if needs == Some(Negatives::Mined) {
                return Ok(builder.field(CLASS_TEMPLATES, &templates));
            }
        }
    }
    Ok(builder)
}

/// The templates of the class texts, if a word list has another one. Earlier builds put the classes into the template of
/// each list, so results without such a list are the same as theirs and keep their fingerprints.
pub fn own_class_templates(recipe: &Recipe) -> Option<Vec<&str>> {
    let templates = recipe.prompt.templates.templates();
    let mut lists = recipe.negative_labels.iter().flat_map(|s| &s.lists);
    lists
        .any(|list| templates != [list.template.as_str()])
        .then_some(templates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::score_columns;

    /// The inputs of a fingerprint of this recipe.
    fn inputs(detector: &str, more: &str) -> Vec<String> {
        let text = format!(
            "name = \"r\"\nmodel = \"demo\"\nmethods = [\"zero-shot\"]\ndetectors = [\"{detector}\"]\n\
             [data]\nid = \"a\"\nood = [\"b\"]\n{more}"
        );
        let recipe = Recipe::parse(&text, "r.toml").unwrap();
        let (columns, _) = score_columns(&recipe).unwrap();
        let builder = with_class_templates(&recipe, &columns, FingerprintBuilder::new("x"));
        builder.unwrap().inputs().keys().cloned().collect()
    }

    #[test]
    fn fingerprints_change_only_where_the_class_texts_did() {
        let list = |template: &str| {
            format!("[[negative_labels.lists]]\nwords = \"w\"\ntemplate = \"{template}\"\n")
        };
        let same = "a photo of a {}";
        let before = inputs("neglabel", "");
        assert_eq!(inputs("neglabel", &list(same)), before);
        assert_eq!(inputs("unknown_prompt", &list("a {} photo")), before);
        for more in [
            list("a {} photo"),
            list(same) + &list("a {} photo"),
            format!("[prompt]\ntemplates = \"openai7\"\n{}", list(same)),
        ] {
            let found = inputs("neglabel", &more);
            assert!(found.iter().any(|key| key == CLASS_TEMPLATES), "{more}");
        }
    }
}

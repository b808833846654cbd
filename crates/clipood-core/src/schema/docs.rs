//! The doc comments of keys and words, read from the source of the types that parse them.

/// The files that define what recipes and manifests may contain, or the words for it.
const SOURCES: [&str; 6] = [
    include_str!("../recipe.rs"),
    include_str!("../recipe/sections.rs"),
    include_str!("../recipe/training.rs"),
    include_str!("../manifest.rs"),
    include_str!("../cluster.rs"),
    include_str!("../method.rs"),
];

/// The doc comment of a field of a type.
pub fn of_field(type_name: &str, field: &str) -> Option<String> {
    let all = items(type_name);
    let found = all.into_iter().find(|(name, _)| *name == field);
    found.map(|(_, text)| text)
}

/// The doc comments of the variants of a type, in order.
pub fn of_variants(type_name: &str) -> Vec<String> {
    items(type_name).into_iter().map(|(_, text)| text).collect()
}

/// The fields or variants of a type with their doc comments, in order. The sources are formatted, so that each item has a line of
/// its own and a type ends with a brace at the margin.
fn items(type_name: &str) -> Vec<(&'static str, String)> {
    let heads = ["struct", "enum"].map(|word| format!("pub {word} {type_name} {{"));
    let lines = SOURCES.iter().flat_map(|source| source.lines());
    let body = lines
        .skip_while(|line| !heads.iter().any(|head| head == line))
        .skip(1)
        .take_while(|line| *line != "}");
    let mut items = Vec::new();
    let mut doc: Vec<&str> = Vec::new();
    for line in body.map(str::trim) {
        if let Some(text) = line.strip_prefix("///") {
            doc.push(text.trim());
        } else if !line.starts_with("//") && !line.starts_with('#') {
            let name = line.strip_prefix("pub ").unwrap_or(line);
            let end = name.find([':', ',', '(']).unwrap_or(name.len());
            items.push((&name[..end], doc.join(" ")));
            doc.clear();
        }
    }
    items
}

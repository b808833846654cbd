//! CoOp's pickles: a dictionary from `train`, `val` and `test` to lists of Dassl's `Datum` (`_impath`, `_label`, `_classname`).

use std::io::Cursor;
use std::sync::Arc;

use clipood_core::pickle::{Id, Meaning, Node, Pickle, Rules};

use super::{SplitImage, with_slashes};
use crate::record::Split;

/// A `Datum` takes some 20 instructions, so this is enough for 1.6 million images, and bounds the objects to 1 GiB.
const RULES: Rules = Rules {
    meaning,
    allowed: "lists of Dassl's `Datum` are read",
    instructions: 1 << 25,
};

/// The name of the class in Dassl and in its copies, whose modules differ.
fn meaning(module: &str, name: &str) -> Option<Meaning> {
    match (module, name) {
        (_, "Datum") => Some(Meaning::Object),
        ("collections", "OrderedDict" | "defaultdict") => Some(Meaning::Dict),
        ("builtins" | "__builtin__", "list") => Some(Meaning::Constant),
        _ => None,
    }
}

/// The images, in the order of the lists.
pub(super) fn images(bytes: &[u8]) -> Result<Vec<SplitImage>, String> {
    let length = bytes.len() as u64;
    let pickle =
        Pickle::read(&mut Cursor::new(bytes), length, &RULES).map_err(|e| e.to_string())?;
    let Node::Dict(parts) = pickle.node(pickle.root()) else {
        return Err("a pickle of something else than a dictionary of train, val and test".into());
    };
    let mut images = Vec::new();
    for (key, list) in parts {
        let key = text(&pickle, *key).ok_or("a key of the dictionary is no text")?;
        let split = match &*key {
            "train" | "train_x" => Split::Train,
            other => Split::named(other).ok_or_else(|| {
                format!("found `{key}` in the dictionary, expected train, val and test")
            })?,
        };
        let items = match pickle.node(*list) {
            Node::List(items) | Node::Tuple(items) => items,
            // A part that a dataset does not have.
            Node::None => continue,
            _ => return Err(format!("`{key}` is no list")),
        };
        for (number, item) in items.iter().enumerate() {
            let image = datum(&pickle, *item, split);
            images.push(image.map_err(|problem| format!("{key}[{number}]: {problem}"))?);
        }
    }
    Ok(images)
}

/// One image.
fn datum(pickle: &Pickle, id: Id, split: Split) -> Result<SplitImage, String> {
    let Node::Object(_, Some(state)) = pickle.node(id) else {
        return Err("no Datum with attributes".into());
    };
    let Node::Dict(attributes) = pickle.node(*state) else {
        return Err("a Datum whose attributes are no dictionary".into());
    };
    let attribute = |name: &str| {
        let named = |(key, _): &&(Id, Id)| text(pickle, *key).as_deref() == Some(name);
        let found = attributes.iter().rev().find(named);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| format!("a Datum without `{name}`"))
    };
    let path = text(pickle, attribute("_impath")?).ok_or("`_impath` is no text")?;
    let label = match pickle.node(attribute("_label")?) {
        Node::Int(label) => u32::try_from(*label)
            .map_err(|_| format!("found label {label}, expected a whole number of at least 0"))?,
        _ => return Err("`_label` is no whole number".into()),
    };
    let class_name = text(pickle, attribute("_classname")?).ok_or("`_classname` is no text")?;
    Ok(SplitImage {
        path: with_slashes(&path),
        split,
        label,
        class_name: class_name.to_string(),
    })
}

fn text(pickle: &Pickle, id: Id) -> Option<Arc<str>> {
    match pickle.node(id) {
        Node::Text(text) => Some(text.clone()),
        _ => None,
    }
}

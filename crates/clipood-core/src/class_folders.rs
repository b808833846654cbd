//! Which class the images of a folder belong to.

use std::collections::{BTreeMap, HashMap};

use crate::class_list::ClassList;
use crate::class_texts::comparable;

/// A folder of images.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageFolder {
    /// Its name.
    pub folder: String,
    /// Its readable name: that of a manifest, or else [`spaced`](crate::spaced).
    pub name: String,
}

/// The class of each folder: that whose id the folder is named by; or whose name is the folder's as it stands; or its
/// readable name; or one of the two with `_` and `-` as spaces on both sides. `None` if there is no such class.
///
/// Several classes may have one name. Then the first folder that matches them, in the order of `folders`, is the first of
/// these classes, the second the second, and those that follow the first again: ImageNet's two folders `missile` are the two
/// lines `missile` of a list in the order of the folders.
pub fn classes_of_folders(classes: &ClassList, folders: &[ImageFolder]) -> Vec<Option<u32>> {
    let mut by_id: HashMap<&str, Vec<u32>> = HashMap::new();
    let mut as_is: HashMap<&str, Vec<u32>> = HashMap::new();
    let mut read: HashMap<String, Vec<u32>> = HashMap::new();
    for (id, class) in classes.ids.iter().flatten().zip(0..) {
        by_id.entry(id).or_default().push(class);
    }
    for (name, class) in classes.names.iter().zip(0..) {
        as_is.entry(name).or_default().push(class);
        read.entry(comparable(name)).or_default().push(class);
    }
    let mut taken: BTreeMap<&[u32], usize> = BTreeMap::new();
    let mut class_of = |folder: &ImageFolder| {
        let found = (by_id.get(folder.folder.as_str()))
            .or_else(|| as_is.get(folder.folder.as_str()))
            .or_else(|| as_is.get(folder.name.as_str()))
            .or_else(|| read.get(&comparable(&folder.folder)))
            .or_else(|| read.get(&comparable(&folder.name)))?;
        let before = taken.entry(found).or_default();
        let class = found.get(*before).or(found.first()).copied();
        *before += 1;
        class
    };
    folders.iter().map(&mut class_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class_texts::spaced;

    fn classes(classes: &ClassList, folders: &[(&str, &str)]) -> Vec<Option<u32>> {
        let folders = folders.iter().map(|(folder, name)| ImageFolder {
            folder: folder.to_string(),
            name: name.to_string(),
        });
        classes_of_folders(classes, &folders.collect::<Vec<_>>())
    }

    fn list(names: &[&str]) -> ClassList {
        ClassList::of(names.iter().map(|name| name.to_string()).collect())
    }

    #[test]
    fn names_are_compared_as_they_stand_and_then_as_they_are_read() {
        let one =
            |name: &str, folder: &str| classes(&list(&["x", name]), &[(folder, &spaced(folder))]);
        for (name, folder) in [
            ("great white shark", "great white shark"),
            ("great white shark", "great_white-shark"),
            ("great_white_shark", "great white shark"),
            ("great-white-shark", "great_white_shark"),
        ] {
            assert_eq!(one(name, folder), [Some(1)], "{name} {folder}");
        }
        assert_eq!(one("great white shark", "white shark"), [None]);
        // As it stands first: each folder has a line of its own.
        let both = list(&["great white", "great_white"]);
        let folders = [
            ("great_white", "great white"),
            ("great white", "great white"),
        ];
        assert_eq!(classes(&both, &folders), [Some(1), Some(0)]);
        // A manifest's name for the folder.
        assert_eq!(
            classes(&list(&["x", "tench"]), &[("n01440764", "tench")]),
            [Some(1)]
        );
    }

    #[test]
    fn ids_decide_whatever_the_order_and_the_names() {
        let list = ClassList {
            ids: Some(vec!["n01443537".to_string(), "n01440764".to_string()]),
            ..list(&["tench", "fish"])
        };
        let folders = [
            ("n01440764", "tench"),
            ("n01443537", "goldfish"),
            ("tench", "tench"),
        ];
        assert_eq!(classes(&list, &folders), [Some(1), Some(0), Some(0)]);
    }

    #[test]
    fn of_equal_names_the_first_folder_is_the_first_class() {
        let twice = list(&["missile", "tench", "missile"]);
        assert_eq!(classes(&twice, &[("missile", "missile")]), [Some(0)]);
        let folders = [
            ("n1", "missile"),
            ("n2", "tench"),
            ("n3", "missile"),
            ("n4", "missile"),
        ];
        assert_eq!(
            classes(&twice, &folders),
            [Some(0), Some(1), Some(2), Some(0)]
        );
    }
}

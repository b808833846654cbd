//! Image keys: `dataset/split/relative/path`, unique and equal on every machine.

use crate::error::CoreError;

/// The parts of an image key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ImageKeyParts<'a> {
    /// Name of the dataset.
    dataset: &'a str,
    /// Name of the split, such as `test`.
    split: &'a str,
    /// Path of the file below the split's folder, with forward slashes.
    relative: &'a str,
}

/// Builds the key `dataset/split/relative` of an image; `relative` is the path of the file below the folder of the split, with
/// forward slashes and the escapes of [`key_part`](crate::key_part).
///
/// # Errors
/// [`CoreError::ImageKey`] if the three parts could not be recovered from the key: a slash in the dataset or the split, an
/// absolute path, a backslash that begins no escape `\xNN`, a control character, or an empty, `.` or `..` component.
pub fn image_key(dataset: &str, split: &str, relative: &str) -> Result<String, CoreError> {
    let key = format!("{dataset}/{split}/{relative}");
    let parts = parse_image_key(&key)?;
    if (parts.dataset, parts.split, parts.relative) != (dataset, split, relative) {
        let problem = "the names of dataset and split cannot contain a slash";
        return Err(CoreError::ImageKey { key, problem });
    }
    Ok(key)
}

/// Checks a key and splits it into its parts.
fn parse_image_key(key: &str) -> Result<ImageKeyParts<'_>, CoreError> {
    let fail = |problem| {
        Err(CoreError::ImageKey {
            key: key.to_string(),
            problem,
        })
    };
    if !key.split('\\').skip(1).all(is_escape) {
        return fail("backslash found, expected forward slashes only");
    }
    if key.chars().any(char::is_control) {
        return fail("control character found");
    }
    for component in key.split('/') {
        match component {
            "" => return fail("empty component found, expected `dataset/split/relative/path`"),
            "." | ".." => return fail("`.` or `..` found, expected plain components"),
            _ => {}
        }
    }
    let mut parts = key.splitn(3, '/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(dataset), Some(split), Some(relative)) => Ok(ImageKeyParts {
            dataset,
            split,
            relative,
        }),
        _ => fail("fewer than three components found, expected `dataset/split/relative/path`"),
    }
}

/// Whether the text behind a backslash completes an escape: `x` and two hexadecimal digits in upper case.
fn is_escape(rest: &str) -> bool {
    let digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    matches!(rest.as_bytes(), [b'x', high, low, ..] if digit(high) && digit(low))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn builds_and_parses() {
        let key = image_key("birds", "test", "great tit/é #1.jpg").unwrap();
        assert_eq!(key, "birds/test/great tit/é #1.jpg");
        let parts = parse_image_key(&key).unwrap();
        assert_eq!((parts.dataset, parts.split), ("birds", "test"));
        assert_eq!(parts.relative, "great tit/é #1.jpg");
    }

    #[test]
    fn refuses_what_is_not_portable() {
        for key in [
            "",
            "a",
            "a/b",
            "a/b/",
            "/a/b/c",
            "a//b/c",
            "a/b/../c",
            "a/./b/c",
            "a/b/c\\d",
            "a/b/c\n",
            "a/b/c\\",
            "a/b/c\\x5",
            "a/b/c\\xfFd",
        ] {
            let error = parse_image_key(key).unwrap_err();
            assert!(matches!(error, CoreError::ImageKey { .. }), "{key:?}");
        }
        assert!(parse_image_key("a/b/c\\x5Cd\\xFF.png").is_ok());
        assert!(image_key("a/b", "test", "c.png").is_err());
        assert!(image_key("a", "b/test", "c.png").is_err());
        assert!(image_key("a", "test", "/c.png").is_err());
    }

    proptest! {
        #[test]
        fn what_is_built_parses_into_the_same_parts(d in ".{0,6}", s in ".{0,6}", r in "[a./\\\\é]{0,9}") {
            if let Ok(key) = image_key(&d, &s, &r) {
                let expected = ImageKeyParts { dataset: &d, split: &s, relative: &r };
                prop_assert_eq!(parse_image_key(&key).unwrap(), expected);
            }
        }
    }
}

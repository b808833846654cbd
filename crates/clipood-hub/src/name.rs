//! Names of repositories.

use crate::error::{HubError, Result};

/// A repository of the hub at a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// `organisation/name`.
    pub repository: String,
    /// Branch, tag or commit; `main` unless the name says otherwise.
    pub revision: String,
    /// What the repository holds.
    pub(crate) kind: Kind,
}

/// What a repository holds; each kind has names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// As messages name it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::Dataset => "dataset",
        }
    }

    /// The part of addresses and cache folders.
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Model => "models",
            Kind::Dataset => "datasets",
        }
    }
}

/// OpenAI's names of its models, and repositories that contain them.
const SHORT: [(&str, &str); 9] = [
    ("ViT-B/32", "openai/clip-vit-base-patch32"),
    ("ViT-B/16", "openai/clip-vit-base-patch16"),
    ("ViT-L/14", "openai/clip-vit-large-patch14"),
    ("ViT-L/14@336px", "openai/clip-vit-large-patch14-336"),
    ("RN50", "timm/resnet50_clip.openai"),
    ("RN101", "timm/resnet101_clip.openai"),
    ("RN50x4", "timm/resnet50x4_clip.openai"),
    ("RN50x16", "timm/resnet50x16_clip.openai"),
    ("RN50x64", "timm/resnet50x64_clip.openai"),
];

impl Name {
    /// Reads `organisation/name` or `organisation/name@revision`, both optionally prefixed with `hf-hub:`, or OpenAI's name of
    /// a model, such as `ViT-B/16`. `None` for any other text, such as a path.
    ///
    /// # Errors
    /// [`HubError::Name`] for invalid text after `hf-hub:`.
    pub fn parse(text: &str) -> Result<Option<Self>> {
        if let Some((_, repository)) = SHORT.iter().find(|(short, _)| *short == text) {
            return Ok(Some(Self::of(repository, "main")));
        }
        let (prefixed, name) = match text.strip_prefix("hf-hub:") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
        if is_repository(repository) && is_revision(revision) {
            return Ok(Some(Self::of(repository, revision)));
        }
        if !prefixed {
            return Ok(None);
        }
        Err(HubError::Name {
            kind: Kind::Model.word(),
            name: text.to_owned(),
            problem: "expected organisation/name, or organisation/name@revision".to_owned(),
        })
    }

    fn of(repository: &str, revision: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
            kind: Kind::Model,
        }
    }

    /// Folder of the repository in the cache: `models--organisation--name`, `datasets--organisation--name`.
    pub(crate) fn folder(&self) -> String {
        let kind = self.kind.plural();
        format!("{kind}--{}", self.repository.replace('/', "--"))
    }

    /// The name behind what it names, for messages: "model `a/b`".
    pub(crate) fn titled(&self) -> String {
        format!("{} `{self}`", self.kind.word())
    }

    /// Address of the description of the repository.
    pub(crate) fn description(&self, endpoint: &str) -> String {
        format!(
            "{endpoint}/api/{}/{}/revision/{}",
            self.kind.plural(),
            self.repository,
            self.revision.replace('/', "%2F")
        )
    }

    /// Address of a file at a commit.
    pub(crate) fn file(&self, endpoint: &str, commit: &str, file: &str) -> String {
        let kind = match self.kind {
            Kind::Model => "",
            Kind::Dataset => "datasets/",
        };
        format!(
            "{endpoint}/{kind}{}/resolve/{commit}/{file}",
            self.repository
        )
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.repository)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        Ok(())
    }
}

/// Whether the text is `organisation/name`.
pub(crate) fn is_repository(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    parts.len() == 2 && parts.iter().all(|part| is_part(part))
}

/// The rule of the hub: 1 to 96 letters, digits, `-`, `_` and `.`, no `..` or `--`, no dot or dash at either end.
fn is_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=96).contains(&part.len())
        && part.chars().all(allowed)
        && !part.starts_with(['-', '.'])
        && !part.ends_with(['-', '.'])
        && !part.contains("..")
        && !part.contains("--")
}

/// Whether the text can be a revision; branches may contain slashes (`refs/pr/1`).
pub(crate) fn is_revision(revision: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    !revision.is_empty()
        && revision.chars().all(allowed)
        && !revision.starts_with('/')
        && !revision
            .split('/')
            .any(|part| part.is_empty() || part.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<String> {
        Name::parse(text).ok()?.map(|name| name.to_string())
    }

    #[test]
    fn names_are_told_from_paths() {
        for (text, expected) in [
            (
                "openai/clip-vit-base-patch16",
                "openai/clip-vit-base-patch16",
            ),
            ("hf-hub:laion/CLIP-ViT-B-32", "laion/CLIP-ViT-B-32"),
            ("a/b@v1.0", "a/b@v1.0"),
            ("a/b@refs/pr/1", "a/b@refs/pr/1"),
            ("a/b@main", "a/b"),
            ("ViT-B/16", "openai/clip-vit-base-patch16"),
            ("RN50x64", "timm/resnet50x64_clip.openai"),
        ] {
            assert_eq!(parsed(text).as_deref(), Some(expected));
        }
        for text in [
            "demo", "./a/b", "/a/b", "a/b/c", "../a", "a/..", "a/b@", "a/b@../c", "a--b/c",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
        assert!(Name::parse("hf-hub:demo").is_err());
        assert!(Name::parse("hf-hub:a/b@../../etc").is_err());
    }
}

//! Options: cache folder, hub, token and retries.

use std::path::PathBuf;
use std::time::Duration;

/// Options of [`resolve`](crate::resolve()).
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Folder of the cache, which contains the folders `models--organisation--name`.
    pub cache: PathBuf,
    /// URL of the hub, without a trailing slash.
    pub endpoint: String,
    /// Access token; sent to the hub, but not to hosts that it redirects to.
    pub token: Option<String>,
    /// Use only the cache, without any request.
    pub offline: bool,
    /// Consecutive attempts without progress before giving up; 0 counts as 1.
    pub attempts: u32,
    /// Pause after the first failed attempt; doubled after each further one, at most a minute.
    pub pause: Duration,
}

impl HubOptions {
    /// The options from the environment variables of `huggingface_hub`.
    pub fn from_env() -> Self {
        Self::from_lookup(|key| std::env::var(key).ok().filter(|value| !value.is_empty()))
    }

    /// The options from `lookup`, which replaces the environment.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let home = || PathBuf::from(lookup("HOME").unwrap_or_else(|| ".".to_owned()));
        let hf_home = match (lookup("HF_HOME"), lookup("XDG_CACHE_HOME")) {
            (Some(folder), _) => PathBuf::from(folder),
            (None, Some(folder)) => PathBuf::from(folder).join("huggingface"),
            (None, None) => home().join(".cache/huggingface"),
        };
        let cache = lookup("HF_HUB_CACHE").or_else(|| lookup("HUGGINGFACE_HUB_CACHE"));
        let token = lookup("HF_TOKEN").or_else(|| lookup("HUGGING_FACE_HUB_TOKEN"));
        let token_file =
            lookup("HF_TOKEN_PATH").map_or_else(|| hf_home.join("token"), PathBuf::from);
        let endpoint = lookup("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let token = token.or_else(|| std::fs::read_to_string(token_file).ok());
        let offline = lookup("HF_HUB_OFFLINE").is_some_and(|value| {
            ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())
        });
        Self {
            cache: cache.map_or_else(|| hf_home.join("hub"), PathBuf::from),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()),
            offline,
            attempts: 5,
            pause: Duration::from_millis(500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> HubOptions {
        HubOptions::from_lookup(|key| {
            let found = pairs.iter().find(|(name, _)| *name == key)?;
            Some(found.1.to_owned())
        })
    }

    #[test]
    fn the_environment_is_read_as_hugging_face_does() {
        let plain = with(&[("HOME", "/home/a")]);
        assert_eq!(plain.cache, PathBuf::from("/home/a/.cache/huggingface/hub"));
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert!(!plain.offline && plain.token.is_none());
        let moved = with(&[("HF_HOME", "/hf"), ("HF_HUB_OFFLINE", "true")]);
        assert_eq!(moved.cache, PathBuf::from("/hf/hub"));
        assert!(moved.offline);
        let all = with(&[
            ("HF_HOME", "/hf"),
            ("HF_HUB_CACHE", "/cache"),
            ("HF_TOKEN", " secret\n"),
            ("HF_ENDPOINT", "http://mirror/"),
            ("HF_HUB_OFFLINE", "0"),
        ]);
        assert_eq!(all.cache, PathBuf::from("/cache"));
        assert_eq!(all.endpoint, "http://mirror");
        assert_eq!(all.token.as_deref(), Some("secret"));
        assert!(!all.offline);
    }
}

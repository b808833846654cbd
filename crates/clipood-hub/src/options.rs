//! Options: cache folder, hub, token, retries and limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{HubError, Result};

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
    /// Pause after the first failed attempt; doubled after each further one, at most [`HubOptions::longest_wait`].
    pub pause: Duration,
    /// Longest time for a connection, for the header of an answer and between two pieces of its body; the minimum rate is
    /// measured over it as well. `CLIPOOD_HUB_TIMEOUT` in seconds, 30 by default.
    pub timeout: Duration,
    /// Least bytes per second of a body, over [`HubOptions::timeout`]; 0 for none. `CLIPOOD_HUB_MIN_RATE`, 1024 by default.
    pub min_rate: u64,
    /// Longest time for all files of a model together; `None` for no limit. `CLIPOOD_HUB_DEADLINE` in seconds, 0 for none, 12
    /// hours by default.
    pub deadline: Option<Duration>,
    /// Longest pause before another attempt; a server that asks for a longer one is an error. `CLIPOOD_HUB_MAX_WAIT` in
    /// seconds, 60 by default.
    pub longest_wait: Duration,
    /// Largest file whose size the hub does not state, in bytes. `CLIPOOD_HUB_MAX_BYTES`, 32 GiB by default.
    pub unstated_limit: u64,
}

impl HubOptions {
    /// The options from the environment variables of `huggingface_hub`, and the limits from those named `CLIPOOD_HUB_...`.
    ///
    /// # Errors
    /// [`HubError::Option`] for a limit that is not a whole number.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|key| std::env::var(key).ok().filter(|value| !value.is_empty()))
    }

    /// The options from `lookup`, which replaces the environment.
    ///
    /// # Errors
    /// As of [`HubOptions::from_env`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let number = |name: &'static str, default: u64| match lookup(name) {
            None => Ok(default),
            Some(text) => text.trim().parse().map_err(|_| HubError::Option {
                name,
                value: text.clone(),
            }),
        };
        let timeout = number("CLIPOOD_HUB_TIMEOUT", 30)?.max(1);
        let deadline = number("CLIPOOD_HUB_DEADLINE", 12 * 3600)?;
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
        Ok(Self {
            cache: cache.map_or_else(|| hf_home.join("hub"), PathBuf::from),
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()),
            offline,
            attempts: 5,
            pause: Duration::from_millis(500),
            timeout: Duration::from_secs(timeout),
            min_rate: number("CLIPOOD_HUB_MIN_RATE", 1024)?,
            deadline: (deadline > 0).then(|| Duration::from_secs(deadline)),
            longest_wait: Duration::from_secs(number("CLIPOOD_HUB_MAX_WAIT", 60)?),
            unstated_limit: number("CLIPOOD_HUB_MAX_BYTES", 32 << 30)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<HubOptions> {
        HubOptions::from_lookup(|key| {
            let found = pairs.iter().find(|(name, _)| *name == key)?;
            Some(found.1.to_owned())
        })
    }

    fn with(pairs: &[(&str, &str)]) -> HubOptions {
        read(pairs).unwrap()
    }

    #[test]
    fn limits_are_whole_numbers_and_zero_is_no_deadline() {
        let plain = with(&[]);
        assert_eq!(plain.timeout, Duration::from_secs(30));
        assert_eq!(plain.deadline, Some(Duration::from_secs(12 * 3600)));
        let set = with(&[
            ("CLIPOOD_HUB_TIMEOUT", "5"),
            ("CLIPOOD_HUB_DEADLINE", "0"),
            ("CLIPOOD_HUB_MIN_RATE", " 7 "),
            ("CLIPOOD_HUB_MAX_WAIT", "9"),
            ("CLIPOOD_HUB_MAX_BYTES", "11"),
        ]);
        assert_eq!(set.timeout, Duration::from_secs(5));
        assert_eq!((set.deadline, set.min_rate), (None, 7));
        assert_eq!(set.longest_wait, Duration::from_secs(9));
        assert_eq!(set.unstated_limit, 11);
        for wrong in ["soon", "-1", "1.5"] {
            let text = read(&[("CLIPOOD_HUB_DEADLINE", wrong)])
                .unwrap_err()
                .to_string();
            assert!(
                text.contains("CLIPOOD_HUB_DEADLINE") && text.contains(wrong),
                "{text}"
            );
        }
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

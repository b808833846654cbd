//! Reading from HTTP servers, which have no safe way to write, and the options of all remote stores.

use std::sync::Arc;

use object_store::ClientConfigKey;
use object_store::http::HttpBuilder;
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::store::Store;

impl Store {
    /// Opens the server of an HTTP URL, without its path, for reading. A query, such as that of a signed URL, is sent with every
    /// request.
    ///
    /// # Errors
    /// [`Error::Location`].
    pub fn open_http(url: &url::Url) -> Result<Self> {
        let bad = |reason: String| Error::Location {
            location: url.to_string(),
            reason,
        };
        let mut server = url.clone();
        server.set_path("/");
        let options = options().filter_map(|(key, value)| {
            let key: ClientConfigKey = key.to_ascii_lowercase().parse().ok()?;
            Some((key, value))
        });
        let builder = HttpBuilder::new()
            .with_config(ClientConfigKey::AllowHttp, "true")
            .with_url(server.as_str());
        let builder = options.fold(builder, |builder, (key, value)| {
            builder.with_config(key, value)
        });
        let objects = builder.build().map_err(|error| bad(error.to_string()))?;
        let location = &url[..url::Position::BeforePath];
        Ok(Self::remote(Arc::new(objects), Path::ROOT, location))
    }
}

/// The options that the environment gives to remote stores.
pub(crate) fn options() -> impl Iterator<Item = (String, String)> {
    // Fails if the process has already installed a provider, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
}

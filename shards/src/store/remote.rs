//! Clients of remote stores.
//!
//! A connection belongs to the event loop that opened it, and is reused by whoever asks next. Were that the loop of the
//! caller who opened a dataset, every stream over it would wait for that loop to turn, and hang once it is idle or gone.
//! So all requests run on one event loop of this module, which lives as long as the process; callers only await.

use std::io;
use std::sync::{Arc, LazyLock};

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreScheme};
use tokio::runtime::{self, Runtime};
use url::{Position, Url};

use super::{StoreError, StoreErrorKind, StoreOptions, shown_url};

/// Enough to decrypt and copy what two network cards of 10 Gbit/s bring; decoding is not done here.
const NUM_THREADS: usize = 2;

static EVENT_LOOP: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    runtime::Builder::new_multi_thread()
        .worker_threads(NUM_THREADS)
        .thread_name("fastclip-store")
        .enable_all()
        .build()
});

/// Makes a builder know the URL, our event loop, when to try again, and those of the options that it understands.
macro_rules! described {
    ($builder:ty, $url:expr, $options:expr, $connector:expr) => {{
        let retries = $options.retries()?;
        $options.pairs.into_iter().fold(
            <$builder>::new().with_url($url).with_http_connector($connector).with_retry(retries),
            |builder, (name, value)| match name.to_ascii_lowercase().parse() {
                Ok(key) => builder.with_config(key, value),
                // Meant for another store.
                Err(_) => builder,
            },
        )
    }};
}

/// A client for a URL, and the path within its store. Nothing is asked of the store.
pub(super) fn connect(
    url: &Url,
    mut options: StoreOptions,
) -> Result<(Arc<dyn ObjectStore>, Path), StoreError> {
    let unknown = || StoreError::location(format!("no store is known for `{}`", shown_url(url)));
    let (scheme, path) = ObjectStoreScheme::parse(url).map_err(|_| unknown())?;
    let path = Path::parse(path).map_err(|error| StoreError::location(error.to_string()))?;
    let event_loop = EVENT_LOOP.as_ref().map_err(|error| StoreError {
        kind: StoreErrorKind::Other,
        message: format!("the event loop for remote stores could not be started: {error}"),
    })?;
    let connector = SpawnedReqwestConnector::new(event_loop.handle().clone());
    let whole = url.as_str();
    let objects: Arc<dyn ObjectStore> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            Arc::new(described!(AmazonS3Builder, whole, options, connector).build()?)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            Arc::new(described!(GoogleCloudStorageBuilder, whole, options, connector).build()?)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            Arc::new(described!(MicrosoftAzureBuilder, whole, options, connector).build()?)
        }
        ObjectStoreScheme::Http => {
            if url.scheme() == "http" {
                // Who writes `http://` has decided against encryption.
                options = options.with("allow_http", "true");
            }
            let server = &url[..Position::BeforePath];
            Arc::new(described!(HttpBuilder, server, options, connector).build()?)
        }
        _ => return Err(unknown()),
    };
    Ok((objects, path))
}

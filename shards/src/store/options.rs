use std::fmt;

use object_store::RetryConfig;

use super::StoreError;

/// Credentials and client settings, as the environment variables of the stores' own tools name them.
#[derive(Clone, Default)]
pub struct StoreOptions {
    pub(super) pairs: Vec<(String, String)>,
}

impl StoreOptions {
    /// Takes `AWS_*`, `GOOGLE_*` and `AZURE_*` of this process as they are, and `OBJECT_STORE_*` without that prefix as
    /// client settings (`OBJECT_STORE_TIMEOUT=60s`), among them how often a request is repeated that failed for a reason that
    /// may pass, and for how long (`OBJECT_STORE_MAX_RETRIES=10`, `OBJECT_STORE_RETRY_TIMEOUT=180s`). This is the only place
    /// where this crate reads the environment.
    pub fn from_process() -> Self {
        let pairs = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let name = match name.strip_prefix("OBJECT_STORE_") {
                Some(setting) => setting.to_lowercase(),
                None if ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix)) => name,
                None => return None,
            };
            let value = value.into_string();
            if value.is_err() {
                tracing::warn!("a setting of stores is left out, as its value is no text: `{name}`");
            }
            Some((name, value.ok()?))
        });
        Self { pairs: pairs.collect() }
    }

    /// How often and how long requests are repeated.
    pub(super) fn retries(&self) -> Result<RetryConfig, StoreError> {
        let mut retries = RetryConfig::default();
        for (name, value) in &self.pairs {
            let malformed = |expected: &str| {
                StoreError::location(format!("the store setting `{name}` is `{value}`, not {expected}"))
            };
            match name.to_ascii_lowercase().as_str() {
                "max_retries" => {
                    retries.max_retries = value.parse().map_err(|_| malformed("a number of retries"))?;
                }
                "retry_timeout" => {
                    retries.retry_timeout =
                        humantime::parse_duration(value).map_err(|_| malformed("a time, as in 180s"))?;
                }
                _ => {}
            }
        }
        Ok(retries)
    }

    /// Adds one setting; it wins over earlier ones of that name.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.pairs.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Names only: values are secrets.
impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.pairs.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn retries_are_set_like_other_settings_and_malformed_ones_are_named() {
        let options = StoreOptions::default().with("max_retries", "2").with("RETRY_TIMEOUT", "90s");
        let retries = options.retries().unwrap();
        assert_eq!((retries.max_retries, retries.retry_timeout), (2, Duration::from_secs(90)));
        let error = StoreOptions::default().with("max_retries", "few").retries().unwrap_err();
        assert_eq!(error.to_string(), "the store setting `max_retries` is `few`, not a number of retries");
    }
}

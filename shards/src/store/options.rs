use std::fmt;

/// Credentials and client settings, as the environment variables of the stores' own tools name them.
#[derive(Clone, Default)]
pub struct StoreOptions {
    pub(super) pairs: Vec<(String, String)>,
}

impl StoreOptions {
    /// Takes `AWS_*`, `GOOGLE_*` and `AZURE_*` of this process as they are, and `OBJECT_STORE_*` without that prefix as
    /// client settings (`OBJECT_STORE_TIMEOUT=60s`). This is the only place where this crate reads the environment.
    pub fn from_process() -> Self {
        let pairs = std::env::vars().filter_map(|(name, value)| {
            if let Some(setting) = name.strip_prefix("OBJECT_STORE_") {
                return Some((setting.to_lowercase(), value));
            }
            let is_ours = ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix));
            is_ours.then_some((name, value))
        });
        Self { pairs: pairs.collect() }
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

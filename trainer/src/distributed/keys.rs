//! Names of what ranks write into the store.

/// The keys of one attempt of one run.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(attempt: &str) -> Self {
        Self { prefix: format!("fastclip/{attempt}") }
    }

    /// Who a rank is; written when it comes.
    pub(super) fn joined(&self, rank: usize) -> String {
        format!("{}/joined/{rank}", self.prefix)
    }

    /// A rank's last sign of life.
    pub(super) fn alive(&self, rank: usize) -> String {
        format!("{}/alive/{rank}", self.prefix)
    }

    /// Set when a rank ends its part.
    pub(super) fn left(&self, rank: usize) -> String {
        format!("{}/left/{rank}", self.prefix)
    }

    /// The first cause of a failure; written once.
    pub(super) fn verdict(&self) -> String {
        format!("{}/verdict", self.prefix)
    }

    /// Set when a rank knows the verdict, and so no longer needs the store.
    pub(super) fn seen(&self, rank: usize) -> String {
        format!("{}/seen/{rank}", self.prefix)
    }

    /// The corner of the process group.
    pub(super) fn group(&self) -> String {
        format!("{}/group", self.prefix)
    }
}

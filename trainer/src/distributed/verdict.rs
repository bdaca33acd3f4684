//! The first cause of a failure, as all ranks agree on it.
//!
//! When one rank goes, every other sees a broken connection or a time-out, and each of them could name somebody else. The
//! store decides: the first verdict written is the one that all report.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who a rank is, in words that lead a person to its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankName {
    /// The rank.
    pub rank: usize,
    /// Name of its machine.
    pub host: String,
    /// Its process there.
    pub pid: u32,
}

impl fmt::Display for RankName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} (process {} on `{}`)", self.rank, self.pid, self.host)
    }
}

/// Why the ranks of a run can no longer work together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Ranks never came to the meeting.
    Missing {
        /// Which.
        ranks: Vec<usize>,
    },
    /// A rank was started with other settings or another version than rank 0.
    Disagreement {
        /// Which.
        rank: RankName,
        /// What differs.
        about: String,
        /// Its value.
        theirs: String,
        /// Rank 0's value.
        expected: String,
    },
    /// Ranks stopped to give signs of life: they were killed, or their machine is gone.
    Silent {
        /// Which.
        ranks: Vec<RankName>,
    },
    /// Ranks live but did not come to a collective that others waited in.
    Absent {
        /// Which.
        ranks: Vec<RankName>,
        /// The collective.
        collective: String,
        /// Its running number.
        sequence: u64,
    },
    /// Ranks had ended their part of the run.
    Left {
        /// Which.
        ranks: Vec<RankName>,
    },
    /// A rank failed by itself and said so.
    Failed {
        /// Which.
        rank: RankName,
        /// What it said.
        cause: String,
        /// Whether it refused what it was asked to do, as opposed to having broken on the way.
        is_refusal: bool,
    },
    /// Who serves the store is gone.
    StoreGone {
        /// The server, if it is a rank.
        rank: Option<RankName>,
        /// Where the store was.
        address: String,
    },
    /// All ranks give signs of life and none is behind.
    Unknown,
}

impl Verdict {
    /// Returns the ranks that are named.
    pub fn ranks(&self) -> Vec<usize> {
        match self {
            Verdict::Missing { ranks } => ranks.clone(),
            Verdict::Silent { ranks } | Verdict::Absent { ranks, .. } | Verdict::Left { ranks } => {
                ranks.iter().map(|name| name.rank).collect()
            }
            Verdict::Disagreement { rank, .. } | Verdict::Failed { rank, .. } => vec![rank.rank],
            Verdict::StoreGone { rank, .. } => rank.iter().map(|name| name.rank).collect(),
            Verdict::Unknown => Vec::new(),
        }
    }

    /// Returns whether the run was refused for what it was asked to do, as opposed to having broken on the way.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Verdict::Disagreement { .. } | Verdict::Failed { is_refusal: true, .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Missing { ranks } => {
                let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
                write!(f, "{noun} {} did not come", listed(ranks))
            }
            Verdict::Disagreement { rank, about, theirs, expected } => {
                write!(f, "{rank} has the {about} `{theirs}`, rank 0 has `{expected}`")
            }
            Verdict::Silent { ranks } => write!(f, "{} gave no more signs of life", listed(ranks)),
            Verdict::Absent { ranks, collective, sequence } => {
                write!(f, "{} did not come to {collective} (collective {sequence})", listed(ranks))
            }
            Verdict::Left { ranks } => write!(f, "{} had already left the run", listed(ranks)),
            Verdict::Failed { rank, cause, .. } => write!(f, "{rank} failed: {cause}"),
            Verdict::StoreGone { rank: Some(rank), address } => {
                write!(f, "{rank} is gone, and with it the store at {address}")
            }
            Verdict::StoreGone { rank: None, address } => {
                write!(f, "the launcher is gone, and with it the store at {address}")
            }
            Verdict::Unknown => f.write_str("all ranks give signs of life, and none is behind the others"),
        }
    }
}

fn listed(items: &[impl fmt::Display]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_survives_the_store() {
        let name = RankName { rank: 2, host: "gpu03".to_owned(), pid: 77 };
        let verdicts = [
            Verdict::Missing { ranks: vec![1, 3] },
            Verdict::Silent { ranks: vec![name.clone()] },
            Verdict::StoreGone { rank: Some(name), address: "gpu03:4000".to_owned() },
            Verdict::Unknown,
        ];
        for verdict in verdicts {
            let bytes = serde_json::to_vec(&verdict).unwrap();
            assert_eq!(serde_json::from_slice::<Verdict>(&bytes).unwrap(), verdict);
        }
    }

    #[test]
    fn missing_ranks_are_listed() {
        assert_eq!(Verdict::Missing { ranks: vec![1, 3] }.to_string(), "ranks 1, 3 did not come");
        assert_eq!(Verdict::Missing { ranks: vec![2] }.to_string(), "rank 2 did not come");
    }
}

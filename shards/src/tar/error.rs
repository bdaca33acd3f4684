/// What is wrong with a tar, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TarError {
    /// The block where a header must be is something else.
    #[error("byte {offset} holds no tar header")]
    NotAHeader {
        /// Where the header should start.
        offset: u64,
    },
    /// The header was changed after it was written.
    #[error("the tar header at byte {offset} has checksum {said}, its bytes add up to {counted}")]
    Checksum {
        /// Where the header starts.
        offset: u64,
        /// The sum it states.
        said: u64,
        /// The sum of its bytes.
        counted: u64,
    },
    /// The size field is no number, or one that no tar can have.
    #[error("the tar header at byte {offset} has an impossible size")]
    Size {
        /// Where the header starts.
        offset: u64,
    },
    /// The bytes end inside a header.
    #[error("the tar is cut at byte {end}, inside the header that starts at byte {offset}")]
    CutHeader {
        /// Where the header starts.
        offset: u64,
        /// Where the bytes end.
        end: u64,
    },
    /// The bytes end inside a member.
    #[error(
        "the tar is cut at byte {end}: `{name}`, whose header starts at byte {offset}, reaches to byte {needed}"
    )]
    CutMember {
        /// Where the member's first header starts.
        offset: u64,
        /// Name of the member.
        name: String,
        /// Where its padded data would end.
        needed: u64,
        /// Where the bytes end.
        end: u64,
    },
    /// The bytes end after a member, but the two empty blocks that close a tar are missing.
    #[error("the tar ends at byte {offset} without an end mark")]
    MissingEnd {
        /// Where the bytes end.
        offset: u64,
    },
    /// A PAX or GNU record that describes the next member is malformed.
    #[error("the extension record at byte {offset} is unusable: {reason}")]
    Extension {
        /// Where the record's header starts.
        offset: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The tar is compressed, and cannot be decompressed from here on.
    #[error("the tar ends at byte {offset}: {reason}")]
    Compression {
        /// Where in the decompressed tar.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// Well formed, but nothing that a shard can hold.
    #[error("the member at byte {offset} is {what}, which shards cannot hold")]
    Unsupported {
        /// Where its header starts.
        offset: u64,
        /// What it is.
        what: &'static str,
    },
}

impl TarError {
    /// Where in the tar the trouble starts.
    pub fn offset(&self) -> u64 {
        match *self {
            Self::NotAHeader { offset }
            | Self::Checksum { offset, .. }
            | Self::Size { offset }
            | Self::CutHeader { offset, .. }
            | Self::CutMember { offset, .. }
            | Self::MissingEnd { offset }
            | Self::Compression { offset, .. }
            | Self::Extension { offset, .. }
            | Self::Unsupported { offset, .. } => offset,
        }
    }
}

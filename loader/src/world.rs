use crate::LoadError;

/// Which of several equal readers this process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct World {
    rank: usize,
    world_size: usize,
}

impl World {
    /// Rank `rank` of `world_size`.
    ///
    /// # Errors
    /// When the rank is not below the world size.
    pub fn new(rank: usize, world_size: usize) -> Result<Self, LoadError> {
        if rank < world_size {
            Ok(Self { rank, world_size })
        } else {
            Err(LoadError::Rank { rank, world_size })
        }
    }

    /// The only reader.
    pub const fn single() -> Self {
        Self { rank: 0, world_size: 1 }
    }

    /// Number of this reader, from 0.
    pub const fn rank(self) -> usize {
        self.rank
    }

    /// Number of readers.
    pub const fn world_size(self) -> usize {
        self.world_size
    }
}

use std::fmt;
use std::path::PathBuf;

/// What [`synth`](super::synth) made, or found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SynthReport {
    /// The folder of the world.
    pub output: PathBuf,
    /// Number of training pictures.
    pub train: u64,
    /// Number of held-out pictures.
    pub held_out: u64,
    /// Bytes of all pictures; 0 when nothing had to be done.
    pub num_bytes: u64,
    /// Whether the very same world was there already.
    pub was_there: bool,
}

impl fmt::Display for SynthReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { output, train, held_out, num_bytes, was_there } = self;
        let output = output.display();
        if *was_there {
            return write!(
                f,
                "already there: {train} training and {held_out} held-out pictures in `{output}`"
            );
        }
        let megabytes = *num_bytes as f64 / 1e6;
        write!(f, "{train} training and {held_out} held-out pictures in `{output}`, {megabytes:.1} MB")
    }
}

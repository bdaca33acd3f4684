use std::io;
use std::path::PathBuf;

/// Why a toy world could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SynthError {
    /// An option has a value that no world can have.
    #[error("`{option}` is {value}, but must be {expected}")]
    Option {
        /// Name of the option, as on the command line.
        option: &'static str,
        /// What it was set to.
        value: u64,
        /// What it may be.
        expected: &'static str,
    },
    /// The folder holds a world made with other settings.
    #[error("`{}` holds a toy world with other settings: {differences}", folder.display())]
    OtherWorld {
        /// The folder that was to be filled.
        folder: PathBuf,
        /// Every setting that differs, with both values.
        differences: String,
    },
    /// The folder holds files that are no toy world, and none of them may be touched.
    #[error("`{}` is not empty and holds no toy world", folder.display())]
    NotAWorld {
        /// The folder that was to be filled.
        folder: PathBuf,
    },
    /// The settings kept beside a world cannot be read.
    #[error("`{}` does not hold the settings of a toy world", path.display())]
    Settings {
        /// The settings file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The file system refused.
    #[error("could not {action} `{}`", path.display())]
    Files {
        /// What was to be done: `write`, `read` or `remove`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A picture could not be compressed.
    #[error("could not encode picture {index} of the {split} split")]
    Encode {
        /// Which split: `train` or `held-out`.
        split: &'static str,
        /// Number of the picture in it.
        index: u64,
        /// What the JPEG library says.
        source: turbojpeg::Error,
    },
}

impl SynthError {
    /// Whether the request was at fault, rather than the machine: the caller should ask for something else.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            SynthError::Option { .. }
                | SynthError::OtherWorld { .. }
                | SynthError::NotAWorld { .. }
                | SynthError::Settings { .. }
        )
    }

    /// What the caller can do about it, where that is known.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            SynthError::OtherWorld { .. } | SynthError::Settings { .. } => {
                Some("choose another folder, or replace this world with `--overwrite`")
            }
            SynthError::NotAWorld { .. } => Some("choose an empty or a new folder"),
            _ => None,
        }
    }
}

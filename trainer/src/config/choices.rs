//! Values that are chosen by name.

use std::convert::Infallible;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What to minimise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[non_exhaustive]
pub enum ObjectiveChoice {
    /// OpenCLIP's baseline: InfoNCE over the global batch
    #[serde(rename = "openclip")]
    #[value(name = "openclip")]
    OpenClip,
    /// SigLIP's baseline: a sigmoid for every pair of the global batch
    #[serde(rename = "siglip")]
    #[value(name = "siglip")]
    SigLip,
    /// Global contrastive loss, constant temperature and gamma
    #[serde(rename = "sogclr")]
    #[value(name = "sogclr")]
    SogClr,
    /// Robust global contrastive loss, a temperature of each sample, constant gamma
    #[serde(rename = "isogclr")]
    #[value(name = "isogclr")]
    ISogClr,
    /// Global contrastive loss without its factor tau, one learned temperature
    #[serde(rename = "fastclip-v0")]
    #[value(name = "fastclip-v0")]
    FastClipV0,
    /// Global contrastive loss, constant temperature
    #[serde(rename = "fastclip-v1")]
    #[value(name = "fastclip-v1")]
    FastClipV1,
    /// Robust global contrastive loss, a learned temperature of each sample
    #[serde(rename = "fastclip-v2")]
    #[value(name = "fastclip-v2")]
    FastClipV2,
    /// Robust global contrastive loss, one learned temperature
    #[serde(rename = "fastclip-v3")]
    #[value(name = "fastclip-v3")]
    FastClipV3,
}

impl ObjectiveChoice {
    /// Returns the name by which users choose it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenClip => "openclip",
            Self::SigLip => "siglip",
            Self::SogClr => "sogclr",
            Self::ISogClr => "isogclr",
            Self::FastClipV0 => "fastclip-v0",
            Self::FastClipV1 => "fastclip-v1",
            Self::FastClipV2 => "fastclip-v2",
            Self::FastClipV3 => "fastclip-v3",
        }
    }

    /// Returns the objective with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        <Self as clap::ValueEnum>::value_variants().iter().copied().find(|choice| choice.name() == name)
    }
}

/// What happens when loss or gradients are not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// The run ends; its last checkpoint is as good as before
    Stop,
    /// The step is left out and named in the log; ten in a row end the run
    Skip,
}

/// Which caption is taken where a sample has several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum CaptionChoice {
    /// The first of the first source that has one.
    First,
    /// Any, drawn anew for each sample and epoch.
    Random,
}

/// The inner learning rate at the end of its schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum GammaChoice {
    /// This one.
    Number(f64),
    /// What the authors of FastCLIP advise for the number of epochs.
    Auto(Auto),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// The only one.
    Auto,
}

impl FromStr for GammaChoice {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto(Auto::Auto)),
            _ => text.parse().map(Self::Number).map_err(|_| "neither a number nor `auto`"),
        }
    }
}

/// Where estimators of samples are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum EstimatorMemory {
    /// Where the model computes
    Device,
    /// In the host's memory; every step then waits for the device
    Host,
}

/// How a gradient becomes a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OptimizerChoice {
    /// Adam with decay apart from the gradient
    #[serde(rename = "adamw")]
    #[value(name = "adamw")]
    AdamW,
    /// Adam whose steps are scaled to the norm of each decayed parameter; for large batches
    Lamb,
    /// Steps along the sign of a mean; wants a rate 3 to 10 times lower than AdamW's, and as much more decay
    Lion,
    /// Stochastic gradient descent with momentum; decay is added to the gradient
    Sgd,
}

/// Kind of number to compute in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floating point throughout
    Fp32,
    /// bfloat16 for matrix products and convolutions; parameters, their gradients, norms' statistics, features and losses in fp32
    #[value(name = "amp_bf16", alias = "amp_bfloat16")]
    #[serde(alias = "amp_bfloat16")]
    AmpBf16,
}

/// Where to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceChoice {
    /// On a GPU if there is one
    Auto,
    /// On the CPU
    Cpu,
    /// On GPUs, one for each rank of a machine
    Cuda,
}

/// Where a run continues from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Resume {
    /// From the run's newest complete checkpoint, or from the start if there is none.
    Auto,
    /// From the run's newest complete checkpoint, which must exist.
    Latest,
    /// From the start; earlier checkpoints of the run are removed.
    Never,
    /// From this checkpoint, a folder or a URL.
    From(String),
}

impl From<String> for Resume {
    fn from(text: String) -> Self {
        match text.as_str() {
            "auto" => Self::Auto,
            "latest" => Self::Latest,
            "never" | "none" => Self::Never,
            _ => Self::From(text),
        }
    }
}

impl FromStr for Resume {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.to_owned().into())
    }
}

impl From<Resume> for String {
    fn from(resume: Resume) -> Self {
        match resume {
            Resume::Auto => "auto".to_owned(),
            Resume::Latest => "latest".to_owned(),
            Resume::Never => "never".to_owned(),
            Resume::From(location) => location,
        }
    }
}

use serde::{Deserialize, Serialize};

/// The result of a finished run, written as `summary.json`.
///
/// All figures but `seconds` and `images_per_second` are a function of data, settings and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Name of the training objective, for example `fastclip-v3`.
    pub objective: String,
    /// Processes that trained together.
    pub ranks: usize,
    /// Samples consumed over all ranks and epochs.
    pub samples_seen: u64,
    /// Wall-clock seconds spent in training steps, over all sessions of the run; evaluation and start-up excluded.
    pub seconds: f64,
    /// Samples of all ranks per second of training.
    pub images_per_second: f64,
    /// Fraction of evaluation images whose best class is the right one; absent, like the next two, without classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot_top1: Option<f64>,
    /// Fraction of evaluation images whose five best classes hold the right one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot_top5: Option<f64>,
    /// What guessing gives for top-1: one over the number of classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zero_shot_chance: Option<f64>,
    /// Fraction of images whose own caption ranks first among the pool's captions.
    pub retrieval_image_to_text_r1: f64,
    /// Same among the first five.
    pub retrieval_image_to_text_r5: f64,
    /// Same among the first ten.
    pub retrieval_image_to_text_r10: f64,
    /// Fraction of captions whose own image ranks first among the pool's images.
    pub retrieval_text_to_image_r1: f64,
    /// Same among the first five.
    pub retrieval_text_to_image_r5: f64,
    /// Same among the first ten.
    pub retrieval_text_to_image_r10: f64,
    /// Number of image-text pairs that retrieval chose among.
    pub retrieval_pool: u64,
}

//! Results under the names that CLIP_benchmark gives them.

use serde_json::{Map, Value, json};

use super::EvalReport;

impl EvalReport {
    /// Returns the figures by the names of CLIP_benchmark, with its definitions: `image_retrieval` looks for the image of
    /// a caption, `text_retrieval` for the caption of an image. Where candidates tie, it counts whatever its sort puts
    /// first, and this the mean over all orders.
    pub fn benchmark(&self) -> Map<String, Value> {
        let mut metrics = Map::new();
        let mut insert = |name: &str, value: f64| metrics.insert(name.to_owned(), json!(value));
        if let Some(zero_shot) = &self.zero_shot {
            insert("acc1", zero_shot.top1);
            insert("acc5", zero_shot.top5);
            insert("mean_per_class_recall", zero_shot.mean_per_class_recall);
        }
        for (task, recall) in [
            ("image_retrieval", self.retrieval.text_to_image),
            ("text_retrieval", self.retrieval.image_to_text),
        ] {
            for (k, found) in [(1, recall.r1), (5, recall.r5), (10, recall.r10)] {
                insert(&format!("{task}_recall@{k}"), found);
            }
        }
        metrics
    }
}

//! The figures that an evaluation ends in.

use serde::{Deserialize, Serialize};

use super::Standing;

/// Classification of images by the prompts of each class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ZeroShot {
    /// Fraction of images whose best class is the right one.
    pub top1: f64,
    /// Fraction of images whose five best classes hold the right one.
    pub top5: f64,
    /// Mean over classes of the fraction of their images whose best class is the right one; classes without an image do not
    /// count.
    #[serde(default)]
    pub mean_per_class_recall: f64,
    /// What guessing gives for `top1`: one over the number of classes.
    pub chance: f64,
    /// Classes to choose from.
    pub num_classes: u64,
    /// Images that have a class.
    pub num_images: u64,
}

impl ZeroShot {
    /// Averages over images, in the order given with their classes; the order decides the last bit of the result.
    pub(super) fn of(standings: &[Standing], classes: &[usize], num_classes: usize) -> Self {
        let mut of_class = vec![(0.0, 0u64); num_classes];
        for (standing, &class) in standings.iter().zip(classes) {
            of_class[class].0 += standing.within(1);
            of_class[class].1 += 1;
        }
        let recalls: Vec<f64> = of_class
            .into_iter()
            .filter(|&(_, images)| images > 0)
            .map(|(found, images)| found / images as f64)
            .collect();
        Self {
            mean_per_class_recall: recalls.iter().sum::<f64>() / recalls.len() as f64,
            top1: mean(standings, |standing| standing.within(1)),
            top5: mean(standings, |standing| standing.within(5)),
            chance: 1.0 / num_classes as f64,
            num_classes: num_classes as u64,
            num_images: standings.len() as u64,
        }
    }
}

/// Finding each image's caption among all captions, and each caption's image among all images.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Retrieval {
    /// Images as queries.
    pub image_to_text: Recall,
    /// Captions as queries.
    pub text_to_image: Recall,
    /// Pairs that were chosen among.
    pub pool: u64,
}

impl Retrieval {
    /// Returns what guessing gives for recall at 1, in either direction.
    pub fn chance(&self) -> f64 {
        1.0 / self.pool as f64
    }
}

/// How far in front the right answers stand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recall {
    /// Fraction of queries whose own counterpart stands first.
    pub r1: f64,
    /// Same among the first five.
    pub r5: f64,
    /// Same among the first ten.
    pub r10: f64,
    /// Mean place of the counterpart, from 1.
    pub mean_rank: f64,
    /// Median place of the counterpart, from 1, rounded down.
    pub median_rank: f64,
}

impl Recall {
    /// Summarises the standings of all queries, in the order of the pool.
    pub(super) fn of(standings: &[Standing]) -> Self {
        let mut ranks: Vec<f64> = standings.iter().map(|standing| standing.rank()).collect();
        ranks.sort_by(f64::total_cmp);
        let middle = ranks.len() / 2;
        let median = if ranks.is_empty() {
            f64::NAN
        } else if ranks.len() % 2 == 1 {
            ranks[middle]
        } else {
            f64::midpoint(ranks[middle - 1], ranks[middle])
        };
        Self {
            r1: mean(standings, |standing| standing.within(1)),
            r5: mean(standings, |standing| standing.within(5)),
            r10: mean(standings, |standing| standing.within(10)),
            mean_rank: mean(standings, Standing::rank),
            median_rank: median.floor(),
        }
    }
}

fn mean(standings: &[Standing], of: impl Fn(&Standing) -> f64) -> f64 {
    standings.iter().map(of).sum::<f64>() / standings.len() as f64
}

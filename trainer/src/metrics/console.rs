//! The lines a person reads, in the form that OpenCLIP's users know.

use std::time::Duration;

use super::{EvalRecord, RunInfo, TrainRecord};

/// Words a training step.
///
/// Field names, order and digits are OpenCLIP's, so that scripts that parse its logs find what they look for. What it
/// does not have comes between `Logit Scale` and `Loss` or after it. `mean_loss` is the bracketed figure.
pub(super) fn train_line(
    record: &TrainRecord,
    info: &RunInfo,
    mean_loss: f64,
    time_left: Option<Duration>,
) -> String {
    let TrainRecord { epoch, lr, tau, loss, timing, .. } = record;
    let total = info.samples_per_epoch;
    let done = record.samples_seen.saturating_sub(epoch * total);
    let digits = total.to_string().len();
    let percent = 100.0 * done as f64 / total.max(1) as f64;
    let all = significant(timing.images_per_second, 6);
    let each = significant(timing.images_per_second / info.num_ranks.max(1) as f64, 6);
    let mut line = format!(
        "Train Epoch: {epoch} [{done:>digits$}/{total} ({percent:.0}%)] Data (t): {:.3} Batch (t): {:.3}, \
         {all}/s, {each}/s/rank LR: {lr:.6}",
        timing.data_seconds, timing.step_seconds
    );
    if let Some(lr_tau) = record.lr_tau {
        line += &format!(" LR_tau: {lr_tau:.6}");
    }
    line += &format!(" Logit Scale: {:.3} Tau: {tau:.4}", 1.0 / tau);
    if let Some(gamma) = record.gamma {
        line += &format!(" Gamma: {gamma:.3}");
    }
    if let Some(contrastive_loss) = record.contrastive_loss {
        line += &format!(" Contrastive_loss: {}", significant(contrastive_loss, 5));
    }
    line += &format!(" Loss: {} ({})", significant(*loss, 5), significant(mean_loss, 5));
    let received: Vec<String> =
        [("gather", record.collectives.all_gather), ("reduce", record.collectives.all_reduce)]
            .map(|(name, traffic)| format!("{name} {:.3}", traffic.num_bytes as f64 / f64::from(1 << 20)))
            .to_vec();
    line += &format!(" Received (MiB): {}", received.join(" "));
    if let Some(memory) = &timing.gpu_memory {
        line += &format!(" GPU (GiB): {:.1}", memory.reserved_bytes as f64 / f64::from(1 << 30));
    }
    if let Some(left) = time_left {
        line += &format!(" Left: {}", clock(left));
    }
    line
}

/// Words an evaluation, with what guessing would give beside each figure that has such a thing.
pub(super) fn eval_line(record: &EvalRecord) -> String {
    let mut line = format!("Eval Epoch: {} step: {}", record.epoch, record.step);
    if let Some(zero_shot) = &record.zero_shot {
        line += &format!(
            "\tzeroshot-top1: {:.4} (chance {:.4})\tzeroshot-top5: {:.4}",
            zero_shot.top1, zero_shot.chance, zero_shot.top5
        );
    }
    if let Some(retrieval) = &record.retrieval {
        for (name, scores) in
            [("image_to_text", retrieval.image_to_text), ("text_to_image", retrieval.text_to_image)]
        {
            line += &format!(
                "\t{name}_R@1: {:.4}\t{name}_R@5: {:.4}\t{name}_R@10: {:.4}",
                scores.r1, scores.r5, scores.r10
            );
        }
        line += &format!("\tpool: {} (chance {:.4})", retrieval.pool, retrieval.chance());
    }
    line += &format!("\tseconds: {:.1}", record.timing.seconds);
    line
}

/// Formats like Python's `#.{digits}g` for figures that need no exponent: significant digits, trailing zeros kept.
fn significant(value: f64, digits: usize) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value:.*}", digits - 1);
    }
    // Rounding may carry into another digit (9.99996 is 10.000), so the exponent is read after rounding.
    let rounded = format!("{value:.*e}", digits - 1);
    let exponent: i32 = rounded
        .rsplit('e')
        .next()
        .and_then(|exponent| exponent.parse().ok())
        .expect("the exponential form of a finite number ends in an integer");
    let decimals = (digits as i32 - 1 - exponent).max(0) as usize;
    format!("{value:.decimals$}")
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::{CommCounters, Traffic};
    use crate::eval::{Recall, Retrieval, ZeroShot};
    use crate::metrics::{EvalTiming, TrainTiming};

    #[test]
    fn a_training_line_has_the_form_of_openclip() {
        let info = RunInfo {
            name: "demo".to_owned(),
            objective: "fastclip-v3".to_owned(),
            command: "train".to_owned(),
            version: "0.1.0".to_owned(),
            num_ranks: 32,
            global_batch: 16_384,
            samples_per_epoch: 3_200_000,
            total_steps: 195,
        };
        let timing = TrainTiming {
            seconds: 137.606,
            step_seconds: 137.606,
            data_seconds: 90.938,
            images_per_second: 119.065,
            gpu_memory: None,
            checkpoints: None,
        };
        let record = TrainRecord {
            step: 196,
            epoch: 1,
            samples_seen: 3_216_384,
            loss: 9.7031,
            contrastive_loss: None,
            log_mean: None,
            lr: 0.0,
            lr_tau: None,
            tau: 0.07,
            gamma: None,
            grad_norm: None,
            communication_bytes: 0,
            collectives: CommCounters::default(),
            timing,
        };
        assert_eq!(
            train_line(&record, &info, 9.703_14, None),
            "Train Epoch: 1 [  16384/3200000 (1%)] Data (t): 90.938 Batch (t): 137.606, 119.065/s, \
             3.72078/s/rank LR: 0.000000 Logit Scale: 14.286 Tau: 0.0700 Loss: 9.7031 (9.7031) Received (MiB): gather 0.000 reduce 0.000"
        );
        let collectives = CommCounters {
            all_gather: Traffic { num_calls: 1, num_bytes: 5 << 19 },
            all_reduce: Traffic { num_calls: 9, num_bytes: 600 << 20 },
            ..CommCounters::default()
        };
        let record = TrainRecord { gamma: Some(0.8), lr_tau: Some(2.5e-4), collectives, ..record };
        let line = train_line(&record, &info, 9.999_96, Some(Duration::from_secs(3_725)));
        assert!(line.contains("LR: 0.000000 LR_tau: 0.000250 Logit Scale: 14.286"), "{line}");
        assert!(
            line.ends_with(
                "Gamma: 0.800 Loss: 9.7031 (10.000) Received (MiB): gather 2.500 reduce 600.000 Left: 1:02:05"
            ),
            "{line}"
        );
    }

    #[test]
    fn an_evaluation_line_shows_chance_beside_the_scores() {
        let recall = |r1| Recall { r1, r5: 0.5, r10: 0.75, mean_rank: 12.0, median_rank: 6.0 };
        let record = EvalRecord {
            step: 300,
            epoch: 2,
            samples_seen: 19_200,
            zero_shot: Some(ZeroShot {
                top1: 0.5,
                top5: 0.875,
                mean_per_class_recall: 0.5,
                chance: 0.0125,
                num_classes: 80,
                num_images: 500,
            }),
            retrieval: Some(Retrieval {
                image_to_text: recall(0.25),
                text_to_image: recall(0.125),
                pool: 500,
            }),
            timing: EvalTiming { seconds: 1.25 },
        };
        assert_eq!(
            eval_line(&record),
            "Eval Epoch: 2 step: 300\tzeroshot-top1: 0.5000 (chance 0.0125)\tzeroshot-top5: 0.8750\
             \timage_to_text_R@1: 0.2500\timage_to_text_R@5: 0.5000\timage_to_text_R@10: 0.7500\
             \ttext_to_image_R@1: 0.1250\ttext_to_image_R@5: 0.5000\ttext_to_image_R@10: 0.7500\
             \tpool: 500 (chance 0.0020)\tseconds: 1.2"
        );
    }

    #[test]
    fn significant_digits_are_those_of_python() {
        let cases = [
            (0.0, "0.0000"),
            (9.7031, "9.7031"),
            (0.012_345_67, "0.012346"),
            (99_999.6, "100000"),
            (-3.0, "-3.0000"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(significant(value, 5), text);
        }
    }
}

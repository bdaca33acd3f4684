//! Every objective against plain loops over the formulas of its paper, through the public tool and real processes.
//!
//! The loops live here, in fp64 and linear space, one anchor after the other, and share nothing with what they check.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

const NUM_SAMPLES: usize = 20;
const NUM_STEPS: usize = 12;
const STEPS_PER_EPOCH: usize = 3;
const BATCH: usize = 8;
const DIM: usize = 5;

const EPSILON: f64 = 1e-3;
const RHO: f64 = 1.5;
const GAMMA_MIN: f64 = 0.4;
const GAMMA_DECAY_EPOCHS: usize = 3;
const TAU_LR: f64 = 0.02;
const BETAS: [f64; 2] = [0.9, 0.95];
const ADAM_EPSILON: f64 = 1e-6;
const SIGLIP_BIAS: f64 = -10.0;

const ALL: [&str; 8] =
    ["openclip", "siglip", "sogclr", "isogclr", "fastclip-v0", "fastclip-v1", "fastclip-v2", "fastclip-v3"];

/// What is compared: an objective under one rule of gradients.
#[derive(Clone, Copy)]
struct Case {
    objective: &'static str,
    follows_objective: bool,
    tau_init: f64,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        let reference = ALL.map(|objective| (objective, false)).into_iter();
        let as_published = ["isogclr", "fastclip-v0", "fastclip-v2", "fastclip-v3"].map(|name| (name, true));
        reference.chain(as_published).map(|(objective, follows_objective)| {
            // Low enough for v3 to come by its threshold on the way.
            let tau_init = if objective == "fastclip-v3" { 0.08 } else { 0.2 };
            Self { objective, follows_objective, tau_init }
        })
    }

    fn has_own_temperatures(self) -> bool {
        matches!(self.objective, "isogclr" | "fastclip-v2")
    }

    fn has_estimators(self) -> bool {
        !matches!(self.objective, "openclip" | "siglip")
    }

    fn schedule(self) -> &'static str {
        match self.objective {
            "fastclip-v3" => "step_thresh",
            _ if self.has_own_temperatures() => "const",
            _ => "cosine",
        }
    }

    fn gamma(self, epoch: usize) -> f64 {
        if epoch == 0 || !self.has_estimators() {
            return 1.0;
        }
        let is_constant = matches!(self.objective, "sogclr" | "isogclr");
        if is_constant || epoch >= GAMMA_DECAY_EPOCHS {
            return GAMMA_MIN;
        }
        let angle = std::f64::consts::PI * epoch as f64 / GAMMA_DECAY_EPOCHS as f64;
        GAMMA_MIN + 0.5 * (1.0 + angle.cos()) * (1.0 - GAMMA_MIN)
    }

    fn config(self) -> String {
        let decay = if matches!(self.objective, "sogclr" | "isogclr") { "constant" } else { "cosine" };
        let gradients = if self.follows_objective { "objective" } else { "reference" };
        format!(
            "objective = '{}'\nnum_samples = {NUM_SAMPLES}\nsteps_per_epoch = {STEPS_PER_EPOCH}\n\
             tau_init = {}\nepsilon = {EPSILON}\nrho = {RHO}\ngamma_schedule = '{decay}'\n\
             gamma_min = {GAMMA_MIN}\ngamma_decay_epochs = {GAMMA_DECAY_EPOCHS}\ntau_lr = {TAU_LR}\n\
             tau_lr_schedule = '{}'\nbeta1 = {}\nbeta2 = {}\nadam_epsilon = {ADAM_EPSILON}\n\
             gradients = '{gradients}'\n",
            self.objective,
            self.tau_init,
            self.schedule(),
            BETAS[0],
            BETAS[1],
        )
    }
}

type Rows = Vec<Vec<f64>>;

/// Features and ids of every step.
struct Input {
    image: Vec<Rows>,
    text: Vec<Rows>,
    ids: Vec<Vec<i64>>,
}

impl Input {
    /// Draws features that are not of unit length, and ids of which some are met late, some again, and some twice in one
    /// batch.
    fn draw(seed: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        let mut rows = |scale: f64| -> Rows {
            let mut number = || scale * (2.0 * generator.random::<f64>() - 1.0);
            (0..BATCH).map(|_| (0..DIM).map(|_| number()).collect()).collect()
        };
        let image: Vec<Rows> = (0..NUM_STEPS).map(|_| rows(1.0)).collect();
        let text = image
            .iter()
            .map(|image| {
                let noise = rows(0.8);
                let pairs = image.iter().zip(&noise);
                pairs.map(|(x, noise)| x.iter().zip(noise).map(|(x, noise)| x + noise).collect()).collect()
            })
            .collect();
        let ids = (0..NUM_STEPS)
            .map(|step| {
                // In epoch 0 the last four samples are not met; one batch of each epoch holds an id twice.
                let range = if step < STEPS_PER_EPOCH { NUM_SAMPLES - 4 } else { NUM_SAMPLES };
                let mut left: Vec<i64> = (0..range as i64).collect();
                let mut ids: Vec<i64> =
                    (0..BATCH).map(|_| left.swap_remove(generator.random_range(0..left.len()))).collect();
                if step % STEPS_PER_EPOCH == 1 {
                    ids[BATCH - 1] = ids[2];
                }
                ids
            })
            .collect();
        Self { image, text, ids }
    }

    /// What is left of the features in a kind of smaller precision.
    fn rounded(mut self, kind: Kind) -> Self {
        if kind == Kind::Float {
            for number in self.image.iter_mut().chain(&mut self.text).flatten().flatten() {
                *number = f64::from(*number as f32);
            }
        }
        self
    }

    fn write(&self, path: &Path, kind: Kind) {
        let stack = |steps: &[Rows]| {
            let flat: Vec<f64> = steps.iter().flatten().flatten().copied().collect();
            let shape = [NUM_STEPS, BATCH, DIM].map(|size| size as i64);
            Tensor::from_slice(&flat).view(shape).to_kind(kind)
        };
        let ids = Tensor::from_slice(&self.ids.concat()).view([NUM_STEPS as i64, BATCH as i64]);
        let named = [("image", stack(&self.image)), ("text", stack(&self.text)), ("ids", ids)];
        Tensor::write_safetensors(&named, path).unwrap();
    }
}

/// Everything that the tool writes of a step.
#[derive(Default)]
struct Expected {
    names: Vec<(&'static str, Vec<f64>)>,
}

/// The plain loops.
struct Loops {
    case: Case,
    u: [Vec<f64>; 2],
    tau: [Vec<f64>; 2],
    mean: [Vec<f64>; 2],
    mean_square: [Vec<f64>; 2],
    /// ln(1/τ) of the global temperature, and AdamW's state of it.
    s: f64,
    s_mean: f64,
    s_mean_square: f64,
}

impl Loops {
    fn new(case: Case) -> Self {
        let zeros = || [vec![0.0; NUM_SAMPLES], vec![0.0; NUM_SAMPLES]];
        Self {
            case,
            u: zeros(),
            tau: [vec![case.tau_init; NUM_SAMPLES], vec![case.tau_init; NUM_SAMPLES]],
            mean: zeros(),
            mean_square: zeros(),
            s: -case.tau_init.ln(),
            s_mean: 0.0,
            s_mean_square: 0.0,
        }
    }

    fn step(&mut self, step: usize, given_x: &Rows, given_t: &Rows, ids: &[i64]) -> Expected {
        let (x, t) = (unit(given_x), unit(given_t));
        let ids: Vec<usize> = ids.iter().map(|&id| id as usize).collect();
        let mut gradient = Gradient::new(&x, &t);
        let epoch = step / STEPS_PER_EPOCH;
        let (loss, surrogate, by_s) = match self.case.objective {
            "openclip" => info_nce(&mut gradient, (-self.s).exp()),
            "siglip" => sigmoid(&mut gradient, self.s.exp()),
            _ => self.global_contrastive(&mut gradient, &ids, epoch),
        };
        self.move_s(step, by_s);
        let of_batch =
            |table: &[Vec<f64>; 2], k: usize| ids.iter().map(|&id| table[k][id]).collect::<Vec<_>>();
        let mut expected = Expected::default();
        let mut push = |name, values| expected.names.push((name, values));
        push("loss", vec![loss]);
        push("surrogate", vec![surrogate]);
        push("tau_grad", vec![by_s]);
        push("gamma", vec![self.case.gamma(epoch)]);
        push("grad_image", of_given(&gradient.dx, &x, given_x));
        push("grad_text", of_given(&gradient.dt, &t, given_t));
        push("u1", of_batch(&self.u, 0));
        push("u2", of_batch(&self.u, 1));
        if self.case.has_own_temperatures() {
            let (tau1, tau2) = (of_batch(&self.tau, 0), of_batch(&self.tau, 1));
            let mean = tau1.iter().chain(&tau2).sum::<f64>() / (2.0 * BATCH as f64);
            push("tau", vec![mean]);
            push("tau1", tau1);
            push("tau2", tau2);
        } else {
            push("tau", vec![(-self.s).exp()]);
        }
        expected
    }

    /// Returns loss, surrogate and d loss / ds, and updates what is remembered.
    fn global_contrastive(
        &mut self,
        gradient: &mut Gradient,
        ids: &[usize],
        epoch: usize,
    ) -> (f64, f64, f64) {
        let Case { objective, follows_objective, .. } = self.case;
        let (batch, gamma, tau) = (BATCH as f64, self.case.gamma(epoch), (-self.s).exp());
        let (mut surrogate, mut loss, mut s_sum, mut m, mut m_epsilon) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let before = (self.u.clone(), self.tau.clone(), self.mean.clone(), self.mean_square.clone());
        for (i, &id) in ids.iter().enumerate() {
            for k in 0..2 {
                let tau_i = if self.case.has_own_temperatures() { before.1[k][id] } else { tau };
                let d = |j: usize| gradient.s(k, i, j) - gradient.s(k, i, i);
                let others: Vec<(usize, f64)> = (0..BATCH).filter(|&j| j != i).map(|j| (j, d(j))).collect();
                let g = others.iter().map(|(_, d)| (d / tau_i).exp()).sum::<f64>() / (batch - 1.0);
                let old = before.0[k][id];
                let u = if gamma == 1.0 || old == 0.0 { g } else { (1.0 - gamma) * old + gamma * g };
                self.u[k][id] = u;
                let c = match objective {
                    "fastclip-v3" => tau,
                    _ if self.case.has_own_temperatures() && follows_objective => tau_i,
                    _ => 1.0,
                };
                surrogate += g / (u + EPSILON) / batch;
                loss += c * g / (u + EPSILON) / batch;
                m += u.ln() / (2.0 * batch);
                m_epsilon += (u + EPSILON).ln() / (2.0 * batch);
                let mut through_exp = 0.0;
                for (j, d) in others {
                    let p = (d / tau_i).exp() / ((batch - 1.0) * (u + EPSILON));
                    through_exp += p * d / tau_i;
                    gradient.add(k, i, j, p * c / (2.0 * batch * tau_i));
                    gradient.add(k, i, i, -p * c / (2.0 * batch * tau_i));
                }
                s_sum += through_exp / batch;
                if self.case.has_own_temperatures() {
                    let q = ((u + EPSILON).ln() + RHO - through_exp).clamp(-5.0, 5.0);
                    let [b1, b2] = if epoch == 0 { [0.0, 0.0] } else { BETAS };
                    let mean = b1 * before.2[k][id] + (1.0 - b1) * q;
                    let mean_square = b2 * before.3[k][id] + (1.0 - b2) * q * q;
                    let power = epoch as i32 + 1;
                    let root = (mean_square / (1.0 - b2.powi(power))).sqrt() + ADAM_EPSILON;
                    let tau_new = tau_i - TAU_LR * (mean / (1.0 - b1.powi(power))) / root;
                    self.mean[k][id] = mean;
                    self.mean_square[k][id] = mean_square;
                    self.tau[k][id] = tau_new.clamp(0.01, 1.0);
                }
            }
        }
        let by_s = match (objective, follows_objective) {
            ("fastclip-v0", false) => s_sum,
            ("fastclip-v0", true) => s_sum / 2.0,
            ("fastclip-v3", false) => -tau * (RHO + m - s_sum),
            ("fastclip-v3", true) => -tau * (RHO + m_epsilon - s_sum / 2.0),
            _ => 0.0,
        };
        if objective == "fastclip-v3" {
            loss += tau * (RHO + m);
        }
        (loss, surrogate, by_s)
    }

    fn move_s(&mut self, step: usize, gradient: f64) {
        let mut rate = TAU_LR;
        match self.case.schedule() {
            "cosine" => {
                rate *= 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / NUM_STEPS as f64).cos());
            }
            "step_thresh" if (-self.s).exp() <= 0.03 => rate /= 3.0,
            _ => {}
        }
        let [b1, b2] = BETAS;
        self.s_mean = b1 * self.s_mean + (1.0 - b1) * gradient;
        self.s_mean_square = b2 * self.s_mean_square + (1.0 - b2) * gradient * gradient;
        let power = step as i32 + 1;
        let root = (self.s_mean_square / (1.0 - b2.powi(power))).sqrt() + ADAM_EPSILON;
        self.s = (self.s - rate * (self.s_mean / (1.0 - b1.powi(power))) / root).clamp(0.0, 100f64.ln());
    }
}

/// Gradients of unit features, gathered similarity by similarity.
struct Gradient<'a> {
    x: &'a Rows,
    t: &'a Rows,
    dx: Rows,
    dt: Rows,
}

impl<'a> Gradient<'a> {
    fn new(x: &'a Rows, t: &'a Rows) -> Self {
        let zeros = || vec![vec![0.0; DIM]; BATCH];
        Self { x, t, dx: zeros(), dt: zeros() }
    }

    /// Similarity of anchor i and candidate j: of image and text, or of text and image for k = 1.
    fn s(&self, k: usize, i: usize, j: usize) -> f64 {
        let (image, text) = if k == 0 { (i, j) } else { (j, i) };
        self.x[image].iter().zip(&self.t[text]).map(|(x, t)| x * t).sum()
    }

    /// Adds what a derivative with respect to that similarity does to the features.
    fn add(&mut self, k: usize, i: usize, j: usize, weight: f64) {
        let (image, text) = if k == 0 { (i, j) } else { (j, i) };
        for dim in 0..DIM {
            self.dx[image][dim] += weight * self.t[text][dim];
            self.dt[text][dim] += weight * self.x[image][dim];
        }
    }
}

fn info_nce(gradient: &mut Gradient, tau: f64) -> (f64, f64, f64) {
    let (mut loss, mut by_s) = (0.0, 0.0);
    let scale = 1.0 / (2.0 * BATCH as f64);
    for k in 0..2 {
        for i in 0..BATCH {
            let logits: Vec<f64> = (0..BATCH).map(|j| gradient.s(k, i, j) / tau).collect();
            let sum = logits.iter().map(|logit| logit.exp()).sum::<f64>();
            loss += scale * (sum.ln() - logits[i]);
            for (j, logit) in logits.iter().enumerate() {
                let by_logit = scale * (logit.exp() / sum - f64::from(u8::from(i == j)));
                by_s += by_logit * logit;
                gradient.add(k, i, j, by_logit / tau);
            }
        }
    }
    (loss, loss, by_s)
}

fn sigmoid(gradient: &mut Gradient, scale: f64) -> (f64, f64, f64) {
    let (mut loss, mut by_s) = (0.0, 0.0);
    for i in 0..BATCH {
        for j in 0..BATCH {
            let z = if i == j { 1.0 } else { -1.0 };
            let scaled = scale * gradient.s(0, i, j);
            let logit = z * (scaled + SIGLIP_BIAS);
            loss += (1.0 + (-logit).exp()).ln() / BATCH as f64;
            let by_logit = -z / (1.0 + logit.exp()) / BATCH as f64;
            by_s += by_logit * scaled;
            gradient.add(0, i, j, by_logit * scale);
        }
    }
    (loss, loss, by_s)
}

fn length(row: &[f64]) -> f64 {
    row.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn unit(rows: &Rows) -> Rows {
    rows.iter().map(|row| row.iter().map(|value| value / length(row)).collect()).collect()
}

/// The chain rule through x/|x|.
fn of_given(gradient: &Rows, unit: &Rows, given: &Rows) -> Vec<f64> {
    let rows = gradient.iter().zip(unit).zip(given);
    rows.flat_map(|((gradient, unit), given)| {
        let along: f64 = gradient.iter().zip(unit).map(|(gradient, unit)| gradient * unit).sum();
        gradient.iter().zip(unit).map(move |(gradient, unit)| (gradient - unit * along) / length(given))
    })
    .collect()
}

/// The tool, which cargo builds beside the tests.
fn tool() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/objective_trace");
    assert!(path.exists(), "{} is missing: build it with `cargo build --examples`", path.display());
    path
}

fn check(case: Case, num_ranks: usize, kind: Kind, tolerance: f64) {
    let folder = tempfile::tempdir().unwrap();
    let [input_path, config, output] =
        ["in.safetensors", "trace.toml", "out.safetensors"].map(|name| folder.path().join(name));
    let seed = ALL.iter().position(|name| *name == case.objective).unwrap() as u64;
    let input = Input::draw(seed).rounded(kind);
    input.write(&input_path, kind);
    fs::write(&config, case.config()).unwrap();
    let run = Command::new(tool())
        .arg("--normalize")
        .args(["--ranks", &num_ranks.to_string()])
        .arg("--input")
        .arg(&input_path)
        .arg("--config")
        .arg(&config)
        .arg("--output")
        .arg(&output)
        .env_remove("RANK")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let found: std::collections::HashMap<String, Tensor> =
        Tensor::read_safetensors(&output).unwrap().into_iter().collect();

    let compare = |name: &str, place: &str, found: &Tensor, expected: &[f64]| {
        assert_eq!(found.kind(), kind, "{name}");
        let found = Vec::<f64>::try_from(found.to_kind(Kind::Double).reshape([-1])).unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        let difference: Vec<f64> =
            found.iter().zip(expected).map(|(found, expected)| found - expected).collect();
        let relative = length(&difference) / length(expected).max(1e-12);
        assert!(
            relative <= tolerance || length(&difference) <= 1e-15,
            "{} ({}, {num_ranks} ranks, {kind:?}): `{name}` {place} differs by {relative:e}\nfound {found:?}\nexpected {expected:?}",
            case.objective,
            if case.follows_objective { "objective" } else { "reference" },
        );
    };
    let mut loops = Loops::new(case);
    for step in 0..NUM_STEPS {
        let expected = loops.step(step, &input.image[step], &input.text[step], &input.ids[step]);
        for (name, values) in &expected.names {
            compare(name, &format!("in step {step}"), &found[*name].get(step as i64), values);
        }
    }
    compare("u1_final", "at the end", &found["u1_final"], &loops.u[0]);
    compare("u2_final", "at the end", &found["u2_final"], &loops.u[1]);
}

#[test]
fn one_process_agrees_with_plain_loops() {
    Case::all().for_each(|case| check(case, 1, Kind::Double, 1e-10));
}

#[test]
fn two_processes_agree_with_plain_loops() {
    Case::all().for_each(|case| check(case, 2, Kind::Double, 1e-10));
}

#[test]
fn four_processes_agree_with_plain_loops() {
    Case::all().for_each(|case| check(case, 4, Kind::Double, 1e-10));
}

#[test]
fn single_precision_agrees_with_plain_loops() {
    Case::all().for_each(|case| check(case, 2, Kind::Float, 2e-5));
}

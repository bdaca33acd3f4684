//! Objectives against worked figures, automatic differentiation and plain loops.

use tch::{Device, Kind, Reduction, Tensor};

use super::*;
use crate::distributed::Alone;
use crate::estimator::Dealing;

const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);

fn v3(epsilon: f64, rho: f64, gamma: f64, gradients: GradientRule, kind: Kind) -> Global {
    global(GlobalVariant::V3, epsilon, rho, gamma, gradients, kind)
}

fn global(
    variant: GlobalVariant,
    epsilon: f64,
    rho: f64,
    gamma: f64,
    gradients: GradientRule,
    kind: Kind,
) -> Global {
    let gamma = GammaSchedule { decay: GammaDecay::Constant, min: gamma, decay_epochs: 1 };
    let options =
        GlobalOptions { variant, gamma, rho, epsilon, gradients, contrast: ContrastOptions::default() };
    Global::new(options, table(&Global::INITIAL_ROW, kind))
}

fn table(initial: &[f64], kind: Kind) -> EstimatorTable {
    EstimatorTable::new(Dealing { num_ids: 64, rank: 0, world_size: 1 }, initial, kind, Device::Cpu)
}

fn v2(tau: f64, gradients: GradientRule, contrast: ContrastOptions) -> Individual {
    let options = IndividualOptions {
        variant: IndividualVariant::V2,
        gamma: GammaSchedule { decay: GammaDecay::Constant, min: 0.6, decay_epochs: 1 },
        rho: 2.0,
        epsilon: 1e-3,
        lr_tau: 0.01,
        beta1: 0.9,
        beta2: 0.98,
        adam_epsilon: 1e-6,
        gradients,
        contrast,
    };
    Individual::new(options, table(&Individual::initial_row(tau), Kind::Double))
}

fn at_degrees(degrees: &[f64]) -> Tensor {
    let radians = Tensor::from_slice(degrees) * (std::f64::consts::PI / 180.0);
    Tensor::stack(&[radians.cos(), radians.sin()], 1)
}

/// Unit rows that differ from call to call of one test but not from run to run.
fn unit_rows(num: i64, dim: i64, salt: i64) -> Tensor {
    let raw = (Tensor::arange(num * dim, OPTIONS) * 12.9898 + salt as f64 * 78.233).sin() * 43_758.545_3;
    let raw = (&raw - raw.floor() - 0.5).view([num, dim]);
    &raw / raw.norm_scalaropt_dim(2, [1i64], true)
}

struct Batch {
    image: Tensor,
    text: Tensor,
    ids: Vec<SampleId>,
    log_scale: Tensor,
    bias: Tensor,
    epoch: u64,
}

impl Batch {
    fn new(image: Tensor, text: Tensor, tau: f64, epoch: u64) -> Self {
        let ids = (0..image.size()[0] as u64).map(SampleId).collect();
        Self { log_scale: Tensor::from((1.0 / tau).ln()), bias: Tensor::from(-2.0), image, text, ids, epoch }
    }

    fn local(&self) -> Local<'_> {
        Local {
            image: &self.image,
            text: &self.text,
            ids: &self.ids,
            ids_on_device: None,
            log_scale: &self.log_scale,
            bias: Some(&self.bias),
            epoch: self.epoch,
        }
    }

    fn differentiate(&self, objective: &mut dyn Objective) -> Share {
        objective.differentiate(&self.local(), &Alone::new()).unwrap()
    }
}

fn number(tensor: &Tensor) -> f64 {
    tensor.double_value(&[])
}

#[track_caller]
fn assert_near(found: &Tensor, expected: &[f64], tolerance: f64) {
    let expected = Tensor::from_slice(expected).view_as(found);
    assert_equal(found, &expected, tolerance);
}

#[track_caller]
fn assert_equal(found: &Tensor, expected: &Tensor, tolerance: f64) {
    assert_eq!(found.size(), expected.size());
    let difference = (found - expected).abs().max().double_value(&[]);
    assert!(difference <= tolerance, "differ by {difference:e}\nfound {found:?}\nexpected {expected:?}");
}

/// InfoNCE and its gradients by automatic differentiation: loss, image, text, ln(1/τ).
fn info_nce(batch: &Batch) -> [Tensor; 4] {
    let leaf = |tensor: &Tensor| tensor.copy().set_requires_grad(true);
    let (image, text, log_scale) = (leaf(&batch.image), leaf(&batch.text), leaf(&batch.log_scale));
    let logits = image.matmul(&text.tr()) * log_scale.exp();
    let labels = Tensor::arange(image.size()[0], (Kind::Int64, Device::Cpu));
    let cross_entropy =
        |logits: &Tensor| logits.cross_entropy_loss(&labels, None::<Tensor>, Reduction::Mean, -100, 0.0);
    let loss = (cross_entropy(&logits) + cross_entropy(&logits.tr())) / 2.0;
    loss.backward();
    [loss.detach(), image.grad(), text.grad(), log_scale.grad()]
}

/// The worked example of the specification: two steps over the same three samples.
mod worked_example {
    use super::*;

    fn steps() -> [Batch; 2] {
        [
            Batch::new(at_degrees(&[0.0, 60.0, 150.0]), at_degrees(&[10.0, 80.0, 130.0]), 0.25, 0),
            Batch::new(at_degrees(&[5.0, 70.0, 140.0]), at_degrees(&[0.0, 75.0, 150.0]), 0.2, 1),
        ]
    }

    /// Runs both steps; returns the shares and, after each step, u of the three samples.
    fn run(gradient: GradientRule) -> Vec<(Share, Tensor)> {
        let mut objective = v3(1e-3, 2.0, 0.6, gradient, Kind::Double);
        steps()
            .iter()
            .map(|batch| {
                let share = batch.differentiate(&mut objective);
                (share, objective.estimators().unwrap().owned().narrow(0, 0, 3).exp())
            })
            .collect()
    }

    #[test]
    fn estimators_follow_the_published_figures() {
        let steps = run(GradientRule::Reference);
        let u1 = [[0.0202352869, 0.1982563244, 0.0463274982], [0.0195203842, 0.0956034109, 0.0366227289]];
        let u2 = [[0.1277519732, 0.0691293536, 0.0466743321], [0.0625374869, 0.0560894621, 0.0239025262]];
        for (step, (_, u)) in steps.iter().enumerate() {
            assert_near(&u.select(1, 0), &u1[step], 1e-10);
            assert_near(&u.select(1, 1), &u2[step], 1e-10);
        }
    }

    #[test]
    fn losses_follow_the_published_figures() {
        let steps = run(GradientRule::Reference);
        for (step, loss, m_epsilon, info_nce, surrogate, m, tau) in [
            (0, 0.3076239400, -2.7110935673, 0.1514239340, 1.9612528871, -2.7307571271, 0.25),
            (1, 0.0001605233, -3.1359452736, 0.0490199262, 1.1637187134, -3.1629160969, 0.2),
        ] {
            let values = &steps[step].0.values;
            assert!((number(&values.loss) - loss).abs() < 1e-10);
            assert!((number(&values.loss) - tau * (surrogate + 2.0 + m)).abs() < 1e-10);
            assert!((number(&values.log_mean) - m_epsilon).abs() < 1e-10);
            assert!((number(&values.contrastive_loss) - info_nce).abs() < 1e-10);
        }
    }

    #[test]
    fn feature_gradients_follow_the_published_figures() {
        let steps = run(GradientRule::Reference);
        let image = [
            [-1.155286398, 0.6234391302, 0.4122240217, -0.4895959024, 1.036438597, 0.0655809292],
            [-0.7558375439, 1.01465134, -0.1390284196, -0.7144426016, 1.1136107689, 0.5641327893],
        ];
        let text = [
            [-0.7207998529, 1.0176327543, -0.7618196459, -0.6035000756, 1.5629091938, 0.0344750959],
            [-0.8803724755, 0.3004704391, -0.1005330097, -0.0842488595, 0.8627863326, -0.2778560663],
        ];
        for (step, tau) in [(0, 0.25), (1, 0.2)] {
            // The figures are those of v1; v3 multiplies by τ.
            let share = &steps[step].0;
            assert_near(&(&share.image / tau), &image[step], 1e-9);
            assert_near(&(&share.text / tau), &text[step], 1e-9);
        }
    }

    #[test]
    fn temperature_gradients_follow_the_published_figures() {
        let reference = run(GradientRule::Reference);
        let objective = run(GradientRule::Objective);
        for (step, tau, by_s, by_tau) in
            [(0, 0.25, -0.9362950013, 1.5268749988), (1, 0.2, -0.5169741396, 0.7379481239)]
        {
            assert!((number(&reference[step].0.log_scale) - by_s).abs() < 1e-10);
            assert!((number(&objective[step].0.log_scale) + tau * by_tau).abs() < 1e-10);
        }
    }

    #[test]
    fn v0_and_v1_differ_in_the_temperature_alone() {
        let run = |variant, gradients| {
            let mut objective = global(variant, 1e-3, 2.0, 0.6, gradients, Kind::Double);
            steps().map(|batch| batch.differentiate(&mut objective))
        };
        let v3 = steps();
        for (variant, gradients, factor) in [
            (GlobalVariant::V0, GradientRule::Reference, 1.0),
            (GlobalVariant::V0, GradientRule::Objective, 0.5),
            (GlobalVariant::V1, GradientRule::Reference, 0.0),
            (GlobalVariant::SogClr, GradientRule::Reference, 0.0),
        ] {
            let s = [-4.4759371321, -3.7477867951];
            let surrogate = [1.9612528871, 1.1637187134];
            let shares = run(variant, gradients);
            let scaled = {
                let mut objective = v3_of_example(gradients);
                v3.each_ref().map(|batch| batch.differentiate(&mut objective))
            };
            for (step, (share, tau)) in shares.iter().zip([0.25, 0.2]).enumerate() {
                assert!((number(&share.log_scale) - factor * s[step]).abs() < 1e-9);
                assert!((number(&share.values.loss) - surrogate[step]).abs() < 1e-10);
                assert_equal(&(&share.image * tau), &scaled[step].image, 1e-12);
                assert_equal(&(&share.text * tau), &scaled[step].text, 1e-12);
            }
        }
    }

    fn v3_of_example(gradients: GradientRule) -> Global {
        v3(1e-3, 2.0, 0.6, gradients, Kind::Double)
    }

    #[test]
    fn individual_temperatures_follow_the_published_figures() {
        // Every visit of the example begins with the same temperature, so each step has a table of its own whose u is that
        // of the step before.
        let mut objective = v2(0.25, GradientRule::Reference, ContrastOptions::default());
        let share = steps()[0].differentiate(&mut objective);
        let rows = objective.estimators().unwrap().owned().narrow(0, 0, 3);
        let q = [1.3541645334, 1.8449266430, 1.3404821331, 1.3274755652, 1.9233909190, 1.3708101989];
        let mean = rows.narrow(1, 4, 2).tr().contiguous();
        assert_near(&mean, &q, 1e-9);
        assert_near(&rows.narrow(1, 6, 2).tr().contiguous(), &q.map(|q| q * q), 1e-8);
        // Epoch 0 has no memory: each temperature moves by the rate against the sign of q.
        assert_near(&rows.narrow(1, 2, 2), &[0.24; 6], 1e-8);

        // With equal temperatures the features see what v1 sees.
        let mut v1 = global(GlobalVariant::V1, 1e-3, 2.0, 0.6, GradientRule::Reference, Kind::Double);
        let expected = steps()[0].differentiate(&mut v1);
        assert_equal(&share.image, &expected.image, 1e-12);
        assert_equal(&share.text, &expected.text, 1e-12);
    }

    #[test]
    fn the_baseline_follows_the_published_figures() {
        for (batch, loss, by_scale) in steps()
            .iter()
            .zip([(0.1514239340, -0.0652142129), (0.0490199262, -0.0305454827)])
            .map(|(b, f)| (b, f.0, f.1))
        {
            let share = batch.differentiate(&mut OpenClip::default());
            let scale = number(&batch.log_scale.exp());
            assert!((number(&share.values.loss) - loss).abs() < 1e-10);
            assert!((number(&share.log_scale) - scale * by_scale).abs() < 1e-9);
        }
    }
}

#[test]
fn the_baseline_agrees_with_automatic_differentiation() {
    let batch = Batch::new(unit_rows(6, 5, 1), unit_rows(6, 5, 2), 0.1, 0);
    let share = batch.differentiate(&mut OpenClip::default());
    let [loss, image, text, log_scale] = info_nce(&batch);
    assert_equal(&share.values.loss, &loss, 1e-13);
    assert_equal(&share.image, &image, 1e-13);
    assert_equal(&share.text, &text, 1e-13);
    assert_equal(&share.log_scale, &log_scale, 1e-13);
}

#[test]
fn with_gamma_1_and_epsilon_1_over_b_minus_1_fastclip_is_info_nce() {
    let batch = Batch::new(unit_rows(6, 5, 1), unit_rows(6, 5, 2), 0.1, 0);
    let mut objective = v3(1.0 / 5.0, 0.0, 1.0, GradientRule::Objective, Kind::Double);
    let share = batch.differentiate(&mut objective);
    let [loss, image, text, log_scale] = info_nce(&batch);
    assert_equal(&(&share.values.log_mean + 5f64.ln()), &loss, 1e-12);
    assert_equal(&share.values.contrastive_loss, &loss, 1e-12);
    let tau = (-&batch.log_scale).exp();
    assert_equal(&(&share.image / &tau), &image, 1e-12);
    assert_equal(&(&share.text / &tau), &text, 1e-12);
    // v3 is τ·(InfoNCE − ln(B−1)): the product rule takes the outer τ away again.
    assert_equal(&(&share.log_scale / &tau + &share.values.log_mean), &log_scale, 1e-12);
}

#[test]
fn with_gamma_1_the_objective_gradients_are_exact() {
    let (epsilon, rho) = (1e-3, 2.0);
    let batch = Batch::new(unit_rows(7, 4, 3), unit_rows(7, 4, 4), 0.2, 0);
    let mut objective = v3(epsilon, rho, 1.0, GradientRule::Objective, Kind::Double);
    let share = batch.differentiate(&mut objective);

    let leaf = |tensor: &Tensor| tensor.copy().set_requires_grad(true);
    let (image, text, s) = (leaf(&batch.image), leaf(&batch.text), leaf(&batch.log_scale));
    let similarity = image.matmul(&text.tr());
    let others = Tensor::ones([7, 7], OPTIONS) - Tensor::eye(7, OPTIONS);
    let log_inner = |similarity: &Tensor| {
        let logits = (similarity - similarity.diagonal(0, 0, 1).unsqueeze(1)) * s.exp();
        ((logits.exp() * &others).sum_dim_intlist(1i64, false, None::<Kind>) / 6.0 + epsilon).log()
    };
    let mean = (log_inner(&similarity) + log_inner(&similarity.tr())).mean(None::<Kind>);
    let tau = (-&s).exp();
    (&tau * mean / 2.0 + &tau * rho).backward();
    assert_equal(&share.image, &image.grad(), 1e-12);
    assert_equal(&share.text, &text.grad(), 1e-12);
    assert_equal(&share.log_scale, &s.grad(), 1e-12);
}

#[test]
fn opposite_features_at_the_lowest_temperature_stay_finite_in_fp32() {
    // Positives point away from each other and negatives coincide: differences of 2 and logits of 200, where exp
    // overflows fp32 more than twice over.
    let angles = [0.0, 180.0, 0.0, 180.0];
    let image = at_degrees(&angles);
    let batch = |kind: Kind, text: &Tensor, epoch| {
        let mut batch = Batch::new(image.to_kind(kind), text.to_kind(kind), 0.01, epoch);
        batch.log_scale = batch.log_scale.to_kind(kind);
        batch
    };
    let mut single = v3(1e-14, 8.0, 0.2, GradientRule::Reference, Kind::Float);
    let mut double = v3(1e-14, 8.0, 0.2, GradientRule::Reference, Kind::Double);
    // Easy first, so that the estimates are tiny when the hard batch arrives, and back again.
    for (epoch, text) in [image.copy(), -&image, image.copy(), -&image].iter().enumerate() {
        let found = batch(Kind::Float, text, epoch as u64).differentiate(&mut single);
        let expected = batch(Kind::Double, text, epoch as u64).differentiate(&mut double);
        for (found, expected) in [
            (&found.image, &expected.image),
            (&found.text, &expected.text),
            (&found.log_scale, &expected.log_scale),
            (&found.values.loss, &expected.values.loss),
        ] {
            assert!(bool::try_from(found.isfinite().all()).unwrap());
            let scale = 1.0 + number(&expected.abs().max());
            assert_equal(&(found.to_kind(Kind::Double) / scale), &(expected / scale), 2e-5);
        }
    }
}

#[test]
fn the_sigmoid_loss_agrees_with_automatic_differentiation() {
    let batch = Batch::new(unit_rows(6, 5, 1), unit_rows(6, 5, 2), 0.1, 0);
    let share = batch.differentiate(&mut SigLip::default());

    let leaf = |tensor: &Tensor| tensor.copy().set_requires_grad(true);
    let [image, text, log_scale, bias] = [&batch.image, &batch.text, &batch.log_scale, &batch.bias].map(leaf);
    let logits = image.matmul(&text.tr()) * log_scale.exp() + &bias;
    let labels = Tensor::eye(6, OPTIONS) * 2.0 - Tensor::ones([6, 6], OPTIONS);
    let loss = -(logits * labels).log_sigmoid().sum(None::<Kind>) / 6.0;
    loss.backward();
    assert_equal(&share.values.loss, &loss.detach(), 1e-13);
    assert_equal(&share.image, &image.grad(), 1e-13);
    assert_equal(&share.text, &text.grad(), 1e-13);
    assert_equal(&share.log_scale, &log_scale.grad(), 1e-13);
    assert_equal(share.bias.as_ref().unwrap(), &bias.grad(), 1e-13);
    let [info_nce, ..] = info_nce(&batch);
    assert_equal(&share.values.contrastive_loss, &info_nce, 1e-13);
}

#[test]
fn the_sigmoid_loss_needs_a_bias() {
    let batch = Batch::new(unit_rows(2, 4, 1), unit_rows(2, 4, 2), 0.1, 0);
    let local = Local { bias: None, ..batch.local() };
    let error = SigLip::default().differentiate(&local, &Alone::new()).unwrap_err();
    assert!(error.to_string().contains("init_logit_bias"), "{error}");
}

#[test]
fn blocks_of_any_size_give_the_same_gradients() {
    // 7 rows of 7 doubles: all at once, three and three and one, and row by row.
    let blocks = [1 << 20, 3 * 7 * 8, 1];
    let make: [fn(ContrastOptions) -> Box<dyn Objective>; 4] = [
        |contrast| Box::new(OpenClip::new(contrast)),
        |contrast| Box::new(SigLip::new(contrast)),
        |contrast| {
            let objective = v3(1e-3, 2.0, 0.6, GradientRule::Reference, Kind::Double);
            let options = GlobalOptions { contrast, ..objective.options() };
            Box::new(Global::new(options, table(&Global::INITIAL_ROW, Kind::Double)))
        },
        |contrast| Box::new(v2(0.1, GradientRule::Objective, contrast)),
    ];
    for make in make {
        let runs = blocks.map(|block_bytes| {
            let mut objective = make(ContrastOptions { block_bytes, ..ContrastOptions::default() });
            [0, 1].map(|epoch| {
                Batch::new(unit_rows(7, 4, 3 + epoch), unit_rows(7, 4, 9 + epoch), 0.1, epoch as u64)
                    .differentiate(&mut *objective)
            })
        });
        let [whole, in_blocks @ ..] = &runs;
        for (found, expected) in in_blocks.iter().flatten().zip(whole.iter().chain(whole)) {
            assert_equal(&found.image, &expected.image, 1e-13);
            assert_equal(&found.text, &expected.text, 1e-13);
            assert_equal(&found.log_scale, &expected.log_scale, 1e-13);
            assert_equal(&found.values.loss, &expected.values.loss, 1e-13);
        }
    }
}

#[test]
fn features_in_bf16_are_those_of_rounded_features() {
    let batch = Batch::new(unit_rows(6, 5, 1), unit_rows(6, 5, 2), 0.1, 0);
    let rounded = |tensor: &Tensor| tensor.to_kind(Kind::BFloat16).to_kind(Kind::Double);
    let by_hand = Batch::new(rounded(&batch.image), rounded(&batch.text), 0.1, 0);
    let contrast = ContrastOptions { precision: FeaturePrecision::Bf16, ..ContrastOptions::default() };
    let found = batch.differentiate(&mut v2(0.1, GradientRule::Reference, contrast));
    let expected = by_hand.differentiate(&mut v2(0.1, GradientRule::Reference, ContrastOptions::default()));
    assert!(found.image.equal(&expected.image) && found.text.equal(&expected.text));
    assert!(!found.image.equal(&batch.differentiate(&mut OpenClip::default()).image));
}

#[test]
fn a_batch_of_one_is_refused() {
    let batch = Batch::new(unit_rows(1, 4, 1), unit_rows(1, 4, 2), 0.1, 0);
    let error = OpenClip::default().differentiate(&batch.local(), &Alone::new()).unwrap_err();
    assert!(error.to_string().contains("at least 2 samples, this one has 1"), "{error}");
}

#[test]
fn a_sample_without_a_row_is_refused() {
    let mut batch = Batch::new(unit_rows(2, 4, 1), unit_rows(2, 4, 2), 0.1, 0);
    batch.ids[1] = SampleId(64);
    let mut objective = v3(1e-14, 8.0, 0.2, GradientRule::Reference, Kind::Double);
    let error = objective.differentiate(&batch.local(), &Alone::new()).unwrap_err();
    assert!(error.to_string().contains("id 64"), "{error}");
}

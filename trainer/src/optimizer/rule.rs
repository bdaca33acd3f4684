//! The rules by which a gradient becomes a step.

/// A rule with its settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// Adam with decay apart from the gradient.
    AdamW(AdamOptions),
    /// Adam whose step, decay included, is scaled for each decayed parameter to the parameter's own norm.
    Lamb(AdamOptions),
    /// Steps of one length along the sign of a mean.
    Lion {
        /// How much of the running mean counts in the sign.
        beta1: f64,
        /// How much of the running mean stays in a step.
        beta2: f64,
    },
    /// Plain gradients or a sum of them; decay is added to the gradient.
    Sgd {
        /// How much of the sum of earlier gradients stays in a step.
        momentum: f64,
        /// Whether the step looks ahead, as Nesterov's does.
        is_nesterov: bool,
    },
}

/// Settings of AdamW and LAMB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamOptions {
    /// How much of the running mean stays in a step.
    pub beta1: f64,
    /// How much of the running mean of squares stays in a step.
    pub beta2: f64,
    /// Added to the root in the denominator.
    pub eps: f64,
}

impl Rule {
    /// Whether its step is one kernel for all parameters, which can read on the device how far to go, and whether at all.
    pub fn is_fused(self) -> bool {
        matches!(self, Self::AdamW(_) | Self::Sgd { .. })
    }

    /// Returns the rule for the temperature: the same, but without momentum for SGD, as in the FastCLIP authors' code.
    pub(super) fn for_temperature(self) -> Self {
        match self {
            Self::Sgd { .. } => Self::Sgd { momentum: 0.0, is_nesterov: false },
            rule => rule,
        }
    }
}

//! How a ResNet's last stage becomes one vector.

use tch::{Kind, Tensor};

use crate::model::config::ModelConfig;
use crate::model::parameters::{Init, ParameterSpec, Parameters};
use crate::model::transformer::{Linear, attend, linear_default};

/// Attention of the mean over all places, and itself.
///
/// OpenCLIP lets every place attend and keeps what the mean got; here only the mean asks.
#[derive(Debug)]
pub(super) struct AttentionPool {
    heads: i64,
    positional_embedding: Tensor,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    c_proj: Linear,
}

impl AttentionPool {
    pub(super) fn layout(name: &str, config: &ModelConfig) -> Vec<ParameterSpec> {
        let vision = &config.vision_cfg;
        let width = vision.attention_width();
        let weight = Init::Normal((width as f64).powf(-0.5));
        let mut specs = vec![ParameterSpec::new(
            format!("{name}.positional_embedding"),
            &[vision.num_tokens(), width],
            weight,
        )];
        for (part, rows) in
            [("k_proj", width), ("q_proj", width), ("v_proj", width), ("c_proj", config.embed_dim)]
        {
            specs.push(ParameterSpec::new(format!("{name}.{part}.weight"), &[rows, width], weight));
            let bias = linear_default(width);
            specs.push(ParameterSpec::new(format!("{name}.{part}.bias"), &[rows], bias));
        }
        specs
    }

    pub(super) fn new(name: &str, config: &ModelConfig, parameters: &Parameters) -> Self {
        let linear = |part: &str| {
            Linear::new(parameters, &format!("{name}.{part}.weight"), &format!("{name}.{part}.bias"))
        };
        Self {
            heads: config.vision_cfg.heads(),
            positional_embedding: parameters.handle(&format!("{name}.positional_embedding")),
            q_proj: linear("q_proj"),
            k_proj: linear("k_proj"),
            v_proj: linear("v_proj"),
            c_proj: linear("c_proj"),
        }
    }

    /// Maps (n, width, rows, columns) to (n, embed_dim).
    pub(super) fn forward(&self, x: &Tensor) -> Tensor {
        let places = x.flatten(2, 3).transpose(1, 2); // [n, places, width]
        let mean = places.mean_dim(1, true, None::<Kind>);
        let tokens = Tensor::cat(&[mean, places], 1) + &self.positional_embedding;
        let (samples, _, width) = tokens.size3().expect("tokens are [n, 1 + places, width]");
        let heads = |rows: Tensor| rows.view([samples, -1, self.heads, width / self.heads]).transpose(1, 2);
        let query = heads(self.q_proj.forward(&tokens.narrow(1, 0, 1)));
        let (key, value) = (heads(self.k_proj.forward(&tokens)), heads(self.v_proj.forward(&tokens)));
        let mixed = attend(&query, &key, &value, false); // [n, heads, 1, head width]
        self.c_proj.forward(&mixed.reshape([samples, width]))
    }
}

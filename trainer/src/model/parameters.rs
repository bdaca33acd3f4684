//! Named tensors: how a model is laid out, and the tensors themselves.

use fastclip_torch_ext::foreach_copy;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Kind, Tensor};

/// Where the values of a new parameter come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// The same value everywhere.
    Constant(f64),
    /// A normal distribution around 0 with this standard deviation.
    Normal(f64),
    /// A uniform distribution between minus and plus this bound.
    Uniform(f64),
}

/// What changes a tensor of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The optimizer.
    Parameter,
    /// Training passes, which gather statistics in it.
    Statistic,
    /// Training passes, which count themselves in it; a 64-bit integer.
    Count,
}

/// A tensor of a model before it exists.
#[derive(Debug, Clone, PartialEq)]
pub struct ParameterSpec {
    /// Name in OpenCLIP's state dict.
    pub name: String,
    /// Its shape.
    pub shape: Vec<i64>,
    /// Its first values.
    pub init: Init,
    /// What changes it.
    pub role: Role,
    /// Whether it enters as it is also where others are rounded.
    pub is_exact: bool,
}

impl ParameterSpec {
    /// Describes a parameter that is trained.
    pub fn new(name: impl Into<String>, shape: &[i64], init: Init) -> Self {
        Self { name: name.into(), shape: shape.to_vec(), init, role: Role::Parameter, is_exact: false }
    }

    /// Lets it enter as it is where others are rounded.
    pub fn exact(self) -> Self {
        Self { is_exact: true, ..self }
    }

    /// Gives it to another role.
    pub fn role(self, role: Role) -> Self {
        Self { role, ..self }
    }

    /// Returns the number of values.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Draws the first values.
    ///
    /// They depend on the seed and the name alone: not on torch's global generator, which other threads may use, and not
    /// on the parameters before this one. So all ranks begin with equal models without a broadcast.
    fn draw(&self, seed: u64) -> Tensor {
        let mut generator = ChaCha8Rng::from_seed(stream_seed(seed, &self.name));
        let numel = self.numel() as usize;
        let values: Vec<f32> = match self.init {
            Init::Constant(value) => vec![value as f32; numel],
            Init::Normal(std) => {
                let mut values = Vec::with_capacity(numel + 1);
                while values.len() < numel {
                    values.extend(normal_pair(&mut generator).map(|value| value * std as f32));
                }
                values.truncate(numel);
                values
            }
            Init::Uniform(bound) => {
                (0..numel).map(|_| (2.0 * generator.random::<f32>() - 1.0) * bound as f32).collect()
            }
        };
        Tensor::from_slice(&values).reshape(&self.shape)
    }
}

fn stream_seed(seed: u64, name: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    // FNV-1a; all that is asked of it is that the names of one model differ.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    bytes[8..16].copy_from_slice(&hash.to_le_bytes());
    bytes
}

/// Two independent standard normal values, by Box and Muller.
fn normal_pair(generator: &mut ChaCha8Rng) -> [f32; 2] {
    // In (0, 1]: the logarithm of 0 is not wanted.
    let radius = (-2.0 * (1.0 - generator.random::<f32>()).ln()).sqrt();
    let (sin, cos) = (std::f32::consts::TAU * generator.random::<f32>()).sin_cos();
    [radius * cos, radius * sin]
}

/// In what order the values of a batch of images, or of the weights of a convolution, lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Channel by channel.
    #[default]
    Planes,
    /// All channels of a place together, which convolutions on GPUs are fastest with.
    ChannelsLast,
}

impl Format {
    /// Makes a tensor of this shape. Only those of four dimensions have a choice.
    pub(super) fn empty(self, shape: &[i64], kind: Kind, device: Device) -> Tensor {
        match (self, shape) {
            (Self::ChannelsLast, &[samples, channels, rows, columns]) => {
                Tensor::empty([samples, rows, columns, channels], (kind, device)).permute([0, 3, 1, 2])
            }
            _ => Tensor::empty(shape, (kind, device)),
        }
    }
}

/// A named tensor of a model.
#[derive(Debug)]
pub struct Parameter {
    /// Name in OpenCLIP's state dict.
    pub name: String,
    /// Its values. Trained ones ask for gradients.
    pub tensor: Tensor,
    /// What towers compute with in its place, if that is rounded.
    rounded: Option<Tensor>,
}

impl Parameter {
    fn new(name: String, tensor: Tensor) -> Self {
        Self { name, tensor, rounded: None }
    }

    /// Returns what towers compute with, a leaf of their graph.
    pub fn leaf(&self) -> &Tensor {
        self.rounded.as_ref().unwrap_or(&self.tensor)
    }
}

/// All parameters of a model, in the order of OpenCLIP's state dict, and beside them what training passes gather.
#[derive(Debug)]
pub struct Parameters {
    trained: Vec<Parameter>,
    locked: Vec<Parameter>,
    buffers: Vec<Parameter>,
}

impl Parameters {
    /// Draws new parameters as `specs` say.
    pub fn draw(specs: &[ParameterSpec], seed: u64, kind: Kind, device: Device) -> Self {
        let (mut trained, mut buffers) = (Vec::new(), Vec::new());
        for spec in specs {
            let (name, tensor) = (spec.name.clone(), spec.draw(seed).to_device(device));
            match spec.role {
                Role::Parameter => {
                    trained.push(Parameter::new(name, tensor.to_kind(kind).set_requires_grad(true)));
                }
                Role::Statistic => buffers.push(Parameter::new(name, tensor.to_kind(kind))),
                Role::Count => buffers.push(Parameter::new(name, tensor.to_kind(Kind::Int64))),
            }
        }
        Self { trained, locked: Vec::new(), buffers }
    }

    /// Takes those that `is_locked` names out of training: they get no gradient any more.
    pub(super) fn lock(&mut self, is_locked: impl Fn(&str) -> bool) {
        let all = std::mem::take(&mut self.trained);
        let (locked, trained) = all.into_iter().partition(|parameter| is_locked(&parameter.name));
        (self.locked, self.trained) = (locked, trained);
        for parameter in &self.locked {
            let _ = parameter.tensor.set_requires_grad(false);
            let _ = parameter.leaf().set_requires_grad(false);
        }
    }

    /// Lets towers compute with copies that are rounded to `kind`, all but those whose specs say that they are exact.
    /// Convolutions get theirs in `format`.
    pub fn rounded_to(mut self, specs: &[ParameterSpec], kind: Kind, format: Format) -> Self {
        let trained = specs.iter().filter(|spec| spec.role == Role::Parameter);
        for (parameter, spec) in self.trained.iter_mut().zip(trained) {
            if !spec.is_exact {
                let copy = format.empty(&spec.shape, kind, parameter.tensor.device());
                parameter.rounded = Some(copy.set_requires_grad(true));
            }
        }
        self.round();
        self
    }

    /// Rounds the values anew, in one pass over all: due whenever something other than this changed them.
    pub fn round(&self) {
        let (copies, values): (Vec<Tensor>, Vec<Tensor>) = self
            .trained
            .iter()
            .chain(&self.locked)
            .filter_map(|parameter| {
                Some((parameter.rounded.as_ref()?.shallow_clone(), parameter.tensor.shallow_clone()))
            })
            .unzip();
        foreach_copy(&copies, &values).expect("copies have the shapes and devices of what they copy");
    }

    /// Returns the trained parameters in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Parameter> {
        self.trained.iter()
    }

    /// Returns what training passes gather: statistics in the kind of the parameters, and counts.
    pub fn buffers(&self) -> &[Parameter] {
        &self.buffers
    }

    /// Returns the parameters that are not trained.
    pub fn locked(&self) -> &[Parameter] {
        &self.locked
    }

    /// Returns the whole state dict: trained parameters, then those that are not, then buffers.
    pub fn state(&self) -> impl Iterator<Item = &Parameter> {
        self.trained.iter().chain(&self.locked).chain(&self.buffers)
    }

    /// Returns how many are trained.
    pub fn len(&self) -> usize {
        self.trained.len()
    }

    /// Returns whether none is trained.
    pub fn is_empty(&self) -> bool {
        self.trained.is_empty()
    }

    /// Returns the number of trained values.
    pub fn numel(&self) -> usize {
        self.trained.iter().map(|parameter| parameter.tensor.numel()).sum()
    }

    /// Finds a parameter or buffer by name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.state().find(|parameter| parameter.name == name).map(|parameter| &parameter.tensor)
    }

    /// Returns what towers compute with for a tensor that the layout is known to have.
    pub(super) fn handle(&self, name: &str) -> Tensor {
        let found = self.state().find(|parameter| parameter.name == name);
        found.expect("towers ask for the names that their own layout lists").leaf().shallow_clone()
    }
}

impl<'a> IntoIterator for &'a Parameters {
    type Item = &'a Parameter;
    type IntoIter = std::slice::Iter<'a, Parameter>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(init: Init, seed: u64, name: &str) -> Tensor {
        ParameterSpec::new(name, &[200, 300], init).draw(seed)
    }

    fn double(tensor: Tensor) -> f64 {
        tensor.double_value(&[])
    }

    #[test]
    fn drawn_values_follow_their_distribution() {
        let normal = drawn(Init::Normal(0.5), 1, "a");
        assert!(double(normal.mean(Kind::Double)).abs() < 0.01);
        assert!((double(normal.std(true)) - 0.5).abs() < 0.01);
        let uniform = drawn(Init::Uniform(0.5), 1, "a");
        assert!(double(uniform.abs().max()) <= 0.5);
        assert!((double(uniform.std(true)) - 0.5 / 3f64.sqrt()).abs() < 0.01);
        assert_eq!(double(drawn(Init::Constant(2.0), 1, "a").min()), 2.0);
    }

    #[test]
    fn values_depend_on_seed_and_name_only() {
        let first = drawn(Init::Normal(1.0), 1, "a");
        assert!(first.equal(&drawn(Init::Normal(1.0), 1, "a")));
        assert!(!first.equal(&drawn(Init::Normal(1.0), 2, "a")));
        assert!(!first.equal(&drawn(Init::Normal(1.0), 1, "b")));
    }
}
